"""The command line: each command calls the package, and prints and writes what it returns."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import sys
from collections.abc import Sequence

from keras_initkit.cli._parser import make_parser

__all__ = ["main", "run"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `keras-initkit` and returns its exit status, which `keras-initkit --help` explains.

    Args:
        arguments: Sequence of strings. What follows the command's name; `None` takes those of the process.

    Raises:
        SystemExit: With status 2 for wrong arguments, 0 for `--help` and `--version`.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    return run(options)


def run(options: argparse.Namespace) -> int:
    """Runs the command of parsed options; bad input ends in one line on stderr and status 2."""
    try:
        command = importlib.import_module(f"keras_initkit.cli._{options.command}_command")
        with contextlib.redirect_stdout(io.StringIO()) if options.json else contextlib.nullcontext():
            status, result = command.run(options)
        if options.json:
            from keras_initkit.report._io import json_safe

            print(json.dumps(json_safe(result), indent=1, allow_nan=False))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout once more at its end
        return 141  # as of a process that SIGPIPE ends
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"keras-initkit {options.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
