"""The command line's arguments. This file imports nothing of the package: it is read before Keras is imported."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any, NoReturn


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Prints one line, without the usage before it."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of `keras-initkit`; `command` is the name of the command."""
    parser = _Parser(
        prog="keras-initkit",
        description="Compare weight initializers, measure how activations and gradients flow through a saved model, "
        "list initializers, and reproduce published experiments.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    add = _add_command(
        commands,
        "compare",
        "train the same model from many initializers and compare them",
        "Trains the same model from each initializer, prints a table, and writes figures and TensorBoard logs.",
    )
    add(
        "--initializers",
        metavar="A,B,C",
        type=lambda names: [name.strip() for name in names.split(",") if name.strip()],
        help="names of initializers; keras-initkit list shows them (default: eleven common ones)",
    )
    add("--activation", default="relu", help="name of a Keras activation for the hidden layers")
    add("--depth", type=_number, default=10, help="number of hidden layers")
    add("--epochs", type=_number, default=5, help="passes over the training set")
    add("--seeds", type=_number, default=1, help="number of runs of each initializer")
    add("--seed", type=_number, default=0, help="seed of the first run; the others follow")
    add("--data", default="digits", help="digits, gaussian, mnist, or an .npz file with arrays x and y")
    add("--out", metavar="DIR", default="comparison", help="directory for the table and the figures")
    add("--log-dir", metavar="DIR", help="directory for TensorBoard's logs (default: logs/compare-<time>)")

    add = _add_command(
        commands,
        "probe",
        "measure every layer of a saved model in one forward and one backward pass",
        "Measures every layer of a saved model in one forward and one backward pass, and prints the report.",
    )
    add("model", help="a model that model.save wrote")
    add(
        "--data",
        metavar="FILE.npz",
        help="arrays x and y, or one array for each input and output, by name; labels are optional. By default, "
        "inputs are generated",
    )
    add("--batch", metavar="N", type=_number, default=64, help="number of examples, taken from the start of the data")
    add("--seed", metavar="S", type=_number, default=0, help="seed for generated inputs and output gradients")
    add("--out", metavar="DIR", help="directory for signal_report.csv, .json and .png")
    add("--diagnose", action="store_true", help="print problems and remedies; exit status 1 if one is an error")

    add = _add_command(
        commands,
        "verify",
        "compare a training step of a saved model with and without measuring, to the last bit",
        "Trains one step of a saved model with LayerStatsCallback and one without, from the same state, and compares "
        "all that they leave, to the last bit. The exit status is 1 if anything differs.",
    )
    add("model", help="a compiled model that model.save wrote")
    add(
        "--data",
        metavar="FILE.npz",
        required=True,
        help="arrays x and y, or one array for each input and output, by name",
    )
    add("--batch", metavar="N", type=_number, default=32, help="number of examples, taken from the start of the data")

    _add_command(
        commands,
        "list",
        "print every initializer: formula, purpose, paper",
        "Prints every initializer of this package and of Keras: formula, purpose, paper.",
    )

    scripts = pathlib.Path(__file__).parents[1].joinpath("examples").glob("plot_*.py")
    names = sorted(script.stem.removeprefix("plot_") for script in scripts)
    add = _add_command(
        commands,
        "reproduce",
        "run one published experiment, or all: table, figure, numbers",
        "Runs one of the gallery's experiments, or all: prints a table, and writes figures, numbers and logs.",
    )
    add("name", help=f"all, or one of {', '.join(names)}")
    add("--out", metavar="DIR", default="reproduced", help="directory for figures, numbers and TensorBoard's logs")
    add("--seed", metavar="S", type=_number, default=0, help="seed of all random numbers")
    add("--data", default="digits", help="digits, mnist, or an .npz file with arrays x and y")
    return parser


def _add_command(commands: Any, name: str, summary: str, description: str) -> Any:
    """Adds a command; returns the function that adds an argument to it."""
    return commands.add_parser(name, help=summary, description=description, formatter_class=_HelpFormatter).add_argument


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Leaves out a default that says nothing: `None` or `False`."""
        return super()._get_help_string(action) if action.default not in (None, False) else action.help


def _number(text: str) -> int | str:
    """An integer, or other text unchanged: the command refuses it with the words for numbers out of range."""
    try:
        return int(text)
    except ValueError:
        return text
