"""The frame of every example: options, data, table, figure and numbers."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import runpy
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from keras_initkit._progress_bar import track
from keras_initkit.comparison._datasets import Dataset, load
from keras_initkit.examples._names import NAMES
from keras_initkit.report._io import json_safe
from keras_initkit.report._tables import Column, make_table

# Okabe and Ito's colors, which color-blind readers can tell apart.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")


@dataclass
class Example:
    """One run of an example.

    Args:
        name: String. Name of the example and of the files that it writes.
        options: Namespace with `seed`, `data`, `out`, and the example's own sizes.
        numbers: Dictionary of the example's results by name.
        saved: List of the paths of its figures, in the order in which they were saved.
    """

    name: str
    options: argparse.Namespace
    numbers: dict[str, Any] = field(default_factory=dict)
    saved: list[str] = field(default_factory=list)

    def images(self, examples: int = 8000, enlarged: bool = False) -> Dataset:
        """Returns standardized images with their classes.

        Args:
            examples: Integer. At most so many training examples, whatever the data: the time stays the same.
            enlarged: Boolean. Whether the digits have each pixel repeated to 64 x 32, or their own 8 x 8.
        """
        data = load(self.options.data, self.options.seed)
        pixels = np.s_[:, ::8, ::4] if self.options.data == "digits" and not enlarged else np.s_[:]
        return replace(
            data,
            x_train=data.x_train[pixels][:examples],
            y_train=data.y_train[:examples],
            x_test=data.x_test[pixels],
        )

    def log_dir(self, run: str) -> str:
        """Returns the log directory of a run, `<out>/logs/<example>/<run>`, after removing earlier logs there."""
        directory = pathlib.Path(self.options.out, "logs", self.name, run)
        for old in directory.rglob("events.out.tfevents.*"):
            old.unlink()
        return str(directory)

    def track(self, items: Sequence[Any] | np.ndarray, title: str) -> Iterable[Any]:
        """Iterates over the items, with a progress bar on stderr."""
        return track(list(items), title)

    def table(self, rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
        """Prints rows under the keys of the first; numbers to three digits."""
        columns = []
        for heading, value in rows[0].items():
            # What does not fit is the headings, which wrap between words; a name cut short says nothing.
            if isinstance(value, str):
                columns.append(Column(heading, min_width=max(len(str(row[heading])) for row in rows)))
            else:
                narrowest = max(map(len, heading.split()), default=0)
                columns.append(Column(heading, "right", "fold", min_width=max(narrowest, 8)))
        cells = [[value if isinstance(value, str) else f"{value:.3g}" for value in row.values()] for row in rows]
        console = Console() if sys.stdout.isatty() else Console(width=96, color_system=None)
        console.print(make_table(columns, cells, title), end="\n\n")

    def figure(self, figure: Figure, caption: str, part: str = "") -> None:
        """Saves a figure as `<out>/<example>.png`, with a caption below it.

        Args:
            figure: with a constrained layout, about 8 inches wide.
            caption: a sentence or three.
            part: of several figures each, what its file's name ends with.
        """
        lines = textwrap.fill(" ".join(caption.split()), int(figure.get_figwidth() * 15))
        figure.supxlabel(lines, x=0.01, ha="left", fontsize=9, linespacing=1.4)
        self.saved.append(self._file(f"{part and '_'}{part}.png"))
        figure.savefig(self.saved[-1], dpi=110, metadata={"Description": caption})
        if "ipykernel" not in sys.modules:  # a notebook shows what is open
            plt.close(figure)

    def found(self, **numbers: Any) -> None:
        """Adds results and writes all to `<out>/<example>.json`, with the options of the run."""
        self.numbers.update(_plain(numbers))
        options = {name: value for name, value in vars(self.options).items() if name != "out"}
        with open(self._file(".json"), "w", encoding="utf-8") as file:
            json.dump(json_safe({"options": options, "numbers": self.numbers}), file, indent=1, allow_nan=False)

    def _file(self, end: str) -> str:
        os.makedirs(self.options.out, exist_ok=True)
        return os.path.join(self.options.out, f"{self.name}{end}")


def start(name: str, **sizes: Any) -> Example:
    """Reads an example's options from the command line and seeds all random numbers.

    Args:
        name: String. Name of the example, one of `NAMES`.
        sizes: Integers. Defaults of further options (`width=512` makes `--width`); a test can run it smaller.

    Example:

    >>> from unittest import mock
    >>> with mock.patch("sys.argv", ["plot_linear_100.py", "--seed", "1", "--width", "64"]):
    ...     start("linear_100", width=512).options
    Namespace(seed=1, data='digits', out='reproduced', width=64)
    """
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--data", default="digits", help="digits, mnist, or an .npz file with arrays x and y")
    parser.add_argument("--out", metavar="DIR", default="reproduced", help="directory for figures, numbers and logs")
    for size, default in sizes.items():
        parser.add_argument(f"--{size.replace('_', '-')}", type=type(default), default=default, help="size")
    # In a notebook the arguments are the kernel's own.
    options = parser.parse_args([] if "ipykernel" in sys.modules else None)
    keras.utils.clear_session()
    keras.utils.set_random_seed(options.seed)
    plt.rcParams.update({"axes.prop_cycle": plt.cycler(color=COLORS), "font.size": 9, "axes.titlesize": 9})
    return Example(name, options)


def reproduce(name: str, out: str = "reproduced", *, seed: int = 0, data: str = "digits", **sizes: Any) -> dict:
    """Runs an example as its script does, and returns its results.

    Args:
        name: String, one of `NAMES`.
        out: String. Directory for figures, numbers and logs.
        seed: Integer. The same seed gives the same numbers.
        data: String. `"digits"`, `"mnist"`, or an `.npz` file with arrays `x` and `y`.
        sizes: The example's own options.

    Raises:
        ValueError: If the name is unknown, or the data cannot be loaded.
        OSError: If `out` cannot be written.
    """
    if name not in NAMES:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(NAMES)}.")
    script = str(pathlib.Path(__file__).with_name(f"plot_{name}.py"))
    options = {"seed": seed, "data": data, "out": out, **sizes}
    arguments = sys.argv
    sys.argv = [script, *(f"--{option.replace('_', '-')}={value}" for option, value in options.items())]
    try:
        with matplotlib.rc_context():
            return runpy.run_path(script, run_name="__main__")["example"].numbers
    finally:
        sys.argv = arguments


def _plain(value: Any) -> Any:
    """Returns Python's own numbers and lists, for JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
