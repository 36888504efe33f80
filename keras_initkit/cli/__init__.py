"""The command line: each command calls the package, and prints and writes what it returns."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from keras_initkit.cli._parser import make_parser

__all__ = ["main", "run"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `keras-initkit` and returns its exit status: 0, 2 for bad input, 1 if `probe --diagnose` finds an error.

    `verify` returns 1 if a measured step differs from a plain one.
    """
    return run(make_parser().parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Runs the command of parsed options; bad input ends in one line on stderr and status 2."""
    try:
        return importlib.import_module(f"keras_initkit.cli._{options.command}_command").run(options)
    except (ValueError, OSError) as error:
        print(f"keras-initkit {options.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
