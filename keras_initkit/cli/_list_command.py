"""`keras-initkit list`."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

import keras
from rich.text import Text

from keras_initkit import initializers
from keras_initkit.cli._output import make_console
from keras_initkit.initializers._catalogue import Entry, catalogue
from keras_initkit.report._tables import Column, make_table

_ORIGINS = {"keras_initkit": "keras_initkit.initializers", "keras": "keras.initializers"}


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Prints the catalogue of initializers, or one of them."""
    if options.name is not None:
        return 0, _print_one(options.name)
    # Two lines each, because formulas stay whole on 80 columns then.
    name = Column("name\npaper", overflow="fold", width=24)
    columns = [name, Column("formula\nwhat it is for", overflow="fold")]
    console = make_console()
    for origin, title in _ORIGINS.items():
        rows = [
            (
                Text.assemble((entry.name, "bold"), "\n" if entry.paper else "", entry.paper),
                Text.assemble((entry.formula, "bold"), "\n", entry.purpose),
            )
            for entry in catalogue()
            if entry.origin == origin
        ]
        console.print(make_table(columns, rows, title, leading=1), end="\n\n")
    return 0, {"initializers": [entry._asdict() for entry in catalogue()]}


def _print_one(name: str) -> dict[str, Any]:
    """Prints an initializer: what the catalogue says, its arguments, and how to write it down."""
    entry = _find(name)
    ours = entry.origin == "keras_initkit"
    kind = getattr(initializers if ours else keras.initializers, entry.name)
    signature = inspect.signature(kind)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    arguments = f"{entry.name}{signature.replace(parameters=bare, return_annotation=signature.empty)}"
    rows = [
        ("formula", entry.formula),
        ("what it is for", entry.purpose),
        ("paper", f"{entry.paper} {entry.link}".strip()),
        ("arguments", f"{_ORIGINS[entry.origin]}.{arguments}"),
        ("by name", f'"keras_initkit>{entry.name}"' if ours else f'"{entry.name}"'),
    ]
    console = make_console()
    rows = [row for row in rows if row[1]]
    columns = [Column(entry.name), Column("", overflow="fold")]
    console.print(make_table(columns, rows))
    return {**entry._asdict(), "arguments": arguments}


def _find(name: str) -> Entry:
    """Returns the entry of a name in any form that `initializers.get` takes, large or small letters alike."""
    wanted = name.rpartition(">")[2].replace("_", "").lower()
    for entry in catalogue():
        if entry.name.lower() == wanted:
            return entry
    initializers.get(name)  # says what is near
    raise ValueError(f"name: got {name!r}, expected the name of an initializer; keras-initkit list shows them.")
