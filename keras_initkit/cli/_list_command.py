"""`keras-initkit list`."""

from __future__ import annotations

import argparse


def run(options: argparse.Namespace) -> int:
    """Prints the catalogue of initializers; returns the exit status."""
    from rich.console import Console
    from rich.text import Text

    from keras_initkit.initializers import catalogue
    from keras_initkit.report._tables import Column, make_table

    # Two lines each, because formulas stay whole on 80 columns then.
    name = Column("name\npaper", overflow="fold", width=24)
    columns = [name, Column("formula\nwhat it is for", overflow="fold")]
    console = Console()
    for origin, title in (("keras_initkit", "keras_initkit.initializers"), ("keras", "keras.initializers")):
        rows = [
            (
                Text.assemble((entry.name, "bold"), "\n" if entry.paper else "", entry.paper),
                Text.assemble((entry.formula, "bold"), "\n", entry.purpose),
            )
            for entry in catalogue()
            if entry.origin == origin
        ]
        console.print(make_table(columns, rows, title, leading=1), end="\n\n")
    return 0
