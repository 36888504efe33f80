"""The command line: thin, the package does the work."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `keras-initkit`; returns its exit status: 0, or 2 for bad input."""
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
    compare.set_defaults(run=_compare)
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
    listing = commands.add_parser("list", help="print every initializer: formula, what it is for, paper")
    listing.set_defaults(run=_list)
    return parser


def _list(options: argparse.Namespace) -> int:
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


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with console.status("starting Keras"):
        from keras_initkit.comparison import DEFAULT, compare
    log_dir = options.log_dir or os.path.join("logs", time.strftime("compare-%Y%m%d-%H%M%S"))
    try:
        os.makedirs(options.out, exist_ok=True)
        if not os.access(options.out, os.W_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise OSError(f"--out: {options.out!r} cannot be written ({error}); give another directory.") from error
    with Progress(console=console) as bar:
        task = bar.add_task("tracing the model", total=1.0)
        comparison = compare(
            DEFAULT if options.initializers is None else options.initializers,
            activation=options.activation,
            depth=options.depth,
            epochs=options.epochs,
            seeds=options.seeds,
            seed=options.seed,
            data=options.data,
            log_dir=log_dir,
            progress=lambda title, share: bar.update(task, description=title, completed=share),
        )
    console.print(comparison.table())
    for path in comparison.save(options.out):
        console.out(path, highlight=False)  # to be copied: neither wrapped nor read as markup
    console.out(f"tensorboard --logdir {shlex.quote(log_dir)}", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
