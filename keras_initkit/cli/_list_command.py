"""`keras-initkit list`."""

from __future__ import annotations

import argparse


def run(options: argparse.Namespace) -> int:
    """Prints the catalogue of initializers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from keras_initkit.initializers import catalogue

    console = Console()
    for origin, title in (("keras_initkit", "keras_initkit.initializers"), ("keras", "keras.initializers")):
        # Two lines each, so that formulas stay whole on 80 columns.
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", leading=1, padding=(0, 1))
        table.add_column(Text("name\npaper"), width=24)
        table.add_column(Text("formula\nwhat it is for"))
        for entry in catalogue():
            if entry.origin == origin:
                name = Text.assemble((entry.name, "bold"), "\n" if entry.paper else "", entry.paper)
                table.add_row(name, Text.assemble((entry.formula, "bold"), "\n", entry.purpose))
        console.print(table)
    return 0
