"""The command line: thin, the package does the work. A module for each command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from keras_initkit.cli import _compare_command as compare_command
from keras_initkit.cli import _list_command as list_command
from keras_initkit.cli import _probe_command as probe_command
from keras_initkit.cli import _reproduce_command as reproduce_command
from keras_initkit.examples import NAMES


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `keras-initkit`; returns its exit status: 0; 2 for bad input; 1 where `probe --diagnose` finds an error."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets on stderr otherwise
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"keras-initkit {options.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _number(text: str) -> int | str:
    """A whole number; any other text as it is, for `compare` to refuse as it refuses numbers out of range."""
    try:
        return int(text)
    except ValueError:
        return text


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="keras-initkit", description="Does signal survive this network?")
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser(
        "compare",
        help="train the same model from many initializations and compare them",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    compare.set_defaults(run=compare_command.run)
    add = compare.add_argument
    add(
        "--initializers",
        metavar="A,B,C",
        type=lambda names: [n.strip() for n in names.split(",") if n.strip()],
        default=None,
        help="names as Keras takes them, or activation_scaling, standard_uniform; by default eleven",
    )
    add("--activation", default="relu", help="name of a Keras activation for the hidden layers")
    add("--depth", type=_number, default=10, help="number of hidden layers")
    add("--epochs", type=_number, default=5, help="passes over the training set")
    add("--seeds", type=_number, default=1, help="runs of each initializer")
    add("--seed", type=_number, default=0, help="the first seed")
    add("--data", default="digits", help="digits, gaussian, mnist, or an .npz file with arrays x and y")
    add("--out", metavar="DIR", default="comparison", help="where the table and the figures go")
    add("--log-dir", metavar="DIR", default=None, help="where TensorBoard's logs go (default: logs/compare-<time>)")
    probe = commands.add_parser(
        "probe",
        help="measure every layer of a saved model in one forward and one backward pass",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    probe.set_defaults(run=probe_command.run)
    add = probe.add_argument
    add("model", help="a model that model.save wrote")
    add(
        "--data",
        metavar="FILE.npz",
        default=None,
        help="arrays x and y, or one by the name of each input and output; y is optional. Without it inputs are drawn",
    )
    add("--batch", metavar="N", type=_number, default=64, help="number of examples, the first of the data")
    add("--seed", metavar="S", type=_number, default=0, help="of what is drawn")
    add("--out", metavar="DIR", default=None, help="where signal_report.csv, .json and .png go")
    add("--diagnose", action="store_true", help="say what is wrong and what to change; exit status 1 if it is an error")
    listing = commands.add_parser("list", help="print every initializer: formula, what it is for, paper")
    listing.set_defaults(run=list_command.run)
    reproduce = commands.add_parser(
        "reproduce",
        help="run one of the sources' experiments, or all: table, figure, numbers",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    reproduce.set_defaults(run=reproduce_command.run)
    add = reproduce.add_argument
    add("name", help=f"all, or one of {', '.join(NAMES)}")
    add("--out", metavar="DIR", default="reproduced", help="where figures, numbers and TensorBoard's logs go")
    add("--seed", metavar="S", type=_number, default=0, help="of all that is drawn")
    add("--data", default="digits", help="digits, mnist, or an .npz file with arrays x and y")
    return parser
