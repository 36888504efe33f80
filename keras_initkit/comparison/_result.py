"""The result of a comparison: runs, a table of them, files and figures."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from keras_initkit import plots
from keras_initkit._html import heading, listing, table, view
from keras_initkit.comparison._verdict import verdict
from keras_initkit.report._io import json_safe
from keras_initkit.report._tables import Column, make_table, render_text
from keras_initkit.statistics._host import Histogram
from keras_initkit.theory._thresholds import HEALTHY_FACTOR


@dataclass(frozen=True)
class Run:
    """One training, from one initializer and seed.

    Args:
        initializer: String. Name of the initializer.
        seed: Integer. Seed of the run.
        forward: List of floats. Variance of each hidden layer's activations at the first training step.
        backward: List of floats. Variance of the gradient of the loss with respect to these activations.
        dead: Float. Fraction of the hidden layers' units that are 0 for every example before training.
        saturated: Float. Fraction of these units that are saturated, and not dead, before training.
        train_loss, train_accuracy, test_loss, test_accuracy: Floats, after training.
        history: Dictionary that `fit` returned, with values by epoch.
        histograms: List of counts and bin edges of each hidden layer's activations before training.
        activations: List of dictionaries with `mean`, `stddev` and number of `zeros` of these activations.
    """

    initializer: str
    seed: int
    forward: list[float]
    backward: list[float]
    dead: float
    saturated: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    history: dict[str, list[float]]
    histograms: list[Histogram]
    activations: list[dict[str, float]]


def geometric_mean(values: Sequence[float]) -> float:
    """Returns the geometric mean; 0 if any value is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.mean(np.log(values))))


@dataclass(frozen=True)
class Comparison:
    """The same model trained from many initializers; `compare` returns it.

    Args:
        settings: Dictionary. How the model was made and trained.
        chance: Float. Test accuracy of always naming the most frequent class.
        test_examples: Integer. Number of test examples.
        runs: List of `Run`, one for each initializer and seed.
    """

    settings: dict[str, Any]
    chance: float
    test_examples: int
    runs: list[Run]

    def by_initializer(self) -> dict[str, list[Run]]:
        """Returns the runs of each initializer, in the order of the comparison."""
        groups: dict[str, list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.initializer, []).append(run)
        return groups

    @np.errstate(invalid="ignore", over="ignore")  # a run that overflowed has infinite and NaN losses
    def rows(self) -> list[dict[str, Any]]:
        """Returns a row for each initializer, with means over its seeds.

        Means of variances are geometric, the others arithmetic. `<name>_spread` is the standard deviation over the
        seeds; that of a variance is a factor, the exponential of the logarithm's standard deviation.
        """
        rows = []
        for name, runs in self.by_initializer().items():
            row: dict[str, Any] = {"initializer": name, "seeds": len(runs)}
            profiles = {}
            for direction in ("forward", "backward"):
                layers = list(zip(*(getattr(run, direction) for run in runs), strict=True))
                profiles[direction] = [geometric_mean(values) for values in layers]
                for where, index in (("first", 0), ("last", -1)):
                    column = f"{_COLUMNS[direction]}_variance_{where}"
                    row[column] = profiles[direction][index]
                    spread = np.std(np.log(layers[index])) if min(layers[index]) > 0 else math.nan
                    row[f"{column}_spread"] = float(np.exp(spread))
            for column in _MEANS:
                values = [getattr(run, column) for run in runs]
                row[column], row[f"{column}_spread"] = float(np.mean(values)), float(np.std(values))
            row["verdict"] = verdict(
                profiles["forward"], profiles["backward"], row["test_accuracy"], self.chance, self.test_examples
            )
            rows.append(row)
        return rows

    def table(self) -> Table:
        """Returns the rows for a terminal of 80 columns: two lines each, first and last layer, training and test."""
        title, headings, cells, caption = self._cells()
        # Folded if it must be: where a longer name takes all the room, rich leaves the verdict out.
        width = max(11, min(max(len(row[0]) for row in cells), 18))
        columns = [
            Column(headings[0], overflow="fold", width=width),
            *(Column(heading, "right") for heading in headings[1:-1]),
            Column(headings[-1], overflow="fold", min_width=9),
        ]
        return make_table(columns, cells, title=title, caption=caption, leading=1)

    def _cells(self) -> tuple[str, list[str], list[list[str]], str]:
        """Returns title, headings, cells and caption of the table."""
        settings = self.settings
        several = settings["seeds"] > 1

        def lines(row: dict[str, Any], form: str, *names: str, spread: bool = several) -> str:
            values = [_short(row[name], form) for name in names]
            if spread:
                spreads = [_short(row[f"{name}_spread"], form) for name in names]
                values = [f"{v.removesuffix('%')}±{d}" for v, d in zip(values, spreads, strict=True)]
            return "\n".join(values)

        cells = [
            [
                row["initializer"],
                lines(row, ".1e", "activation_variance_first", "activation_variance_last", spread=False),
                lines(row, ".1e", "gradient_variance_first", "gradient_variance_last", spread=False),
                lines(row, ".0%", "dead", "saturated", spread=False),
                lines(row, ".2f", "train_loss", "test_loss"),
                lines(row, ".0%", "train_accuracy", "test_accuracy"),
                row["verdict"],
            ]
            for row in self.rows()
        ]
        headings = [
            "initializer",
            "activation\nvariance\nfirst\nlast",
            "gradient\nvariance\nfirst\nlast",
            "units\n\ndead\nsatur.",
            "loss\n\ntrain\ntest",
            "accuracy\n\ntrain\ntest",
            "verdict",
        ]
        epochs, seed = settings["epochs"], settings["seed"]
        title = f"{self._caption()}, {epochs} epoch{'s' * (epochs > 1)}, seed {seed}"
        title += f" to {seed + settings['seeds'] - 1}" * several
        caption = f"Variance and units: before training. Accuracy by chance: {self.chance:.0%}."
        return title, headings, cells, caption + " Mean ± standard deviation over seeds." * several

    def __repr__(self) -> str:
        rows = self.rows()
        best = max(rows, key=lambda row: row["test_accuracy"], default=None)
        about = f", best {best['initializer']} with {best['test_accuracy']:.0%}" if best else ""
        return f"<Comparison of {len(rows)} initializers, {self._caption()}{about}>"

    def __str__(self) -> str:
        return render_text(self.table(), width=80)

    def _repr_html_(self) -> str:
        title, headings, cells, caption = self._cells()
        return view(heading(title), table(headings, cells, words=(0, len(headings) - 1)), listing([caption]))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data: settings, rows and every run."""
        return {
            "settings": self.settings,
            "chance": self.chance,
            "test_examples": self.test_examples,
            "rows": self.rows(),
            "runs": [asdict(run) for run in self.runs],
        }

    def plot_histograms(self) -> Figure:
        """Draws histograms of activations before training, a panel for each initializer, at most eight."""
        first_runs = {name: _layer_histograms(runs[0]) for name, runs in self.by_initializer().items()}
        return plots.activation_histograms(first_runs, self._caption())

    def plot_variance(self) -> Figure:
        """Draws the variance by layer as factors from where the signal enters, with the range over seeds."""
        groups = self.by_initializer().items()
        forward = {name: np.array([run.forward for run in runs]) for name, runs in groups}
        backward = {name: np.array([run.backward for run in runs]) for name, runs in groups}
        return plots.variance_by_layer(forward, backward, self._caption(), healthy=math.log10(HEALTHY_FACTOR))

    def plot_training(self) -> Figure:
        """Draws loss and accuracy on the test set by epoch."""
        groups = self.by_initializer().items()
        loss = {name: np.array([run.history["val_loss"] for run in runs]) for name, runs in groups}
        accuracy = {name: np.array([run.history["val_accuracy"] for run in runs]) for name, runs in groups}
        return plots.training_curves(loss, accuracy, self._caption())

    def save(self, directory: str | os.PathLike[str]) -> list[str]:
        """Writes `comparison.csv`, `comparison.json` and the figures.

        JSON has no NaN and no infinity: they are written as `null` and as the strings `"Infinity"`, `"-Infinity"`.

        Args:
            directory: String or path; made if missing.

        Returns:
            List of the paths of the files.

        Raises:
            OSError: If the directory cannot be made or written.
        """
        os.makedirs(directory, exist_ok=True)
        paths = {name: os.path.join(directory, name) for name in _FILES}
        rows = self.rows()
        with open(paths["comparison.csv"], "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        with open(paths["comparison.json"], "w", encoding="utf-8") as file:
            json.dump(json_safe(self.to_dict()), file, indent=1, allow_nan=False)
        self.plot_histograms().savefig(paths["activation_histograms.png"], dpi=110)
        self.plot_variance().savefig(paths["variance_by_layer.png"], dpi=110)
        self.plot_training().savefig(paths["training.png"], dpi=110)
        return list(paths.values())

    def _caption(self) -> str:
        s = self.settings
        return f"{s['depth']} x Dense({s['units']}, {s['activation']}) on {os.path.basename(s['data'])}"


_COLUMNS = {"forward": "activation", "backward": "gradient"}
_MEANS = ("dead", "saturated", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
_FILES = ("comparison.csv", "comparison.json", "activation_histograms.png", "variance_by_layer.png", "training.png")


def _layer_histograms(run: Run) -> list[plots.LayerHistogram]:
    return [
        plots.LayerHistogram("", counts, edges, each["mean"], each["stddev"], int(each["zeros"]))
        for (counts, edges), each in zip(run.histograms, run.activations, strict=True)
    ]


def _short(value: float, form: str) -> str:
    """Returns a number for a narrow column, where a loss that exploded needs an exponent."""
    return format(value, ".0e" if form == ".2f" and abs(value) >= 1000 else form)
