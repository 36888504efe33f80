"""What was measured at one point of training."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_initkit.report import _scalars
from keras_initkit.report._rows import TensorStats
from keras_initkit.report._scalars import STATISTICS
from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._tap import Tap

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group
    from rich.table import Table


@dataclass(frozen=True)
class SignalReport:
    """Statistics of every tensor that was read, at one point of training.

    Args:
        rows: one for each tensor, layers in the order in which they were called. A tensor that was not there
            (a frozen layer's gradient) has none.
        step: number of training steps done before the measured one.
        epoch: the epoch of the measured step, from 0.
        model: name of the model.
        notes: what a reader has to know: where inputs or gradients came from, what could not be read or predicted.
    """

    rows: tuple[TensorStats, ...]
    step: int = 0
    epoch: int = 0
    model: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of_step(cls, step: int, epoch: int, rows: Iterable[TensorStats]) -> SignalReport:
        """What one training step showed."""
        return cls(tuple(rows), step, epoch)

    @property
    def moments(self) -> dict[Tap, Moments]:
        """The moments by tap."""
        return {row.tap: row.moments for row in self.rows}

    @property
    def layers(self) -> list[str]:
        """Paths of the measured layers, in the report's order."""
        return list(dict.fromkeys(row.tap.layer for row in self.rows))

    def statistic(self, name: str) -> dict[str, float]:
        """One statistic by layer, such as `"activation_variance"`; a layer to which it does not apply is left out.

        Of all calls and outputs of the layer together, or of all its kernels (weights of two axes or more; of a
        layer that has none, of all that it trains).

        Raises:
            ValueError: for an unknown name.
        """
        _scalars.checked_statistics([name])
        return _scalars.values_by_layer(self, [name])[name]

    def scalars(self, statistics: Iterable[str] | None = None) -> dict[str, float]:
        """Statistics of every layer by their tags `<statistic>/<layer>`; those of `STATISTICS` if `None`."""
        names = STATISTICS if statistics is None else statistics
        values = _scalars.values_by_layer(self, names)
        return {f"{name}/{layer}": value for name, layers in values.items() for layer, value in layers.items()}

    @property
    def first_nonfinite(self) -> Tap | None:
        """The first tensor with a NaN or an infinity; `None` if all are finite.

        First in the order in which a step makes them: weights, outputs forward, gradients backward, weight
        gradients, updates.
        """
        return _scalars.first_nonfinite(self)

    def table(self, folded: bool = True) -> Table:
        """A line for each call of a layer, for a terminal of 100 columns.

        Each line has the output's mean and standard deviation (sd), the sd that theory expects, the
        pre-activation's, the gradient's at the output and theory's, and the shares of dead and saturated units.
        Red is 0 or not finite; yellow a variance more than a factor of 10 from where the signal enters (the
        first layer's output, embeddings apart, and the last layer's gradient), or half of the units or more.
        Columns without any value are left out, and the notes, which `print(report)` has under the table.

        Args:
            folded: whether a model of more than 30 lines is cut to both ends, samples between them and what
                stands out; a row then says between what values the others lie.
        """
        from keras_initkit.report._render_text import rich_table

        return rich_table(self, folded)

    def __rich__(self) -> Group:
        from keras_initkit.report._render_text import printable

        return printable(self)

    def __str__(self) -> str:
        from rich.console import Console

        from keras_initkit.report._render_text import WIDTH

        console = Console(width=WIDTH, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self, markup=False)
        return "\n".join(line.rstrip() for line in capture.get().rstrip().split("\n"))

    def _repr_html_(self) -> str:
        from keras_initkit.report._render_html import html_of

        return html_of(self)

    def plot(self) -> Figure:
        """Histograms of activations, and the variance by depth, forward and backward.

        Above a row of at most ten layers' histograms, evenly spread. Below the variance of each layer's output
        and pre-activation, and of the gradient at its output, with theory's prediction and the healthy band: a
        factor of 10 either side of where the signal enters, the first layer's output forward (embeddings apart),
        the last layer's gradient backward. A variance that is 0 or not finite is marked at the edge and named.
        """
        from keras_initkit.report._render_figures import figure_of

        return figure_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `model`, `step`, `epoch`, `notes` and `rows`, a dictionary for each tensor.

        A row names its tensor (`kind`, `layer`, `call`, `name`, `layer_type`, `shape`) and holds its moments
        (`count`, `mean`, `m2`, `minimum`, `maximum`, `zeros`, `nonfinite`, `variance`, `stddev`,
        `zero_fraction`), the other fields of `TensorStats`, `predicted_mean` and `predicted_variance`.
        """
        from keras_initkit.report._io import row_to_dict

        return {
            "model": self.model,
            "step": self.step,
            "epoch": self.epoch,
            "notes": list(self.notes),
            "rows": [row_to_dict(row) for row in self.rows],
        }

    def to_csv(self, path: str | os.PathLike) -> None:
        """Writes a line for each tensor: the rows of `to_dict` without the histograms.

        Raises:
            OSError: if the file cannot be written.
        """
        from keras_initkit.report._io import write_csv

        write_csv(self, path)

    def to_json(self, path: str | os.PathLike) -> None:
        """Writes the whole report; `from_json` reads it back.

        JSON has no word for NaN and infinity; they are written as `null` and as the strings `"Infinity"`,
        `"-Infinity"`. What does not apply to a row is left out.

        Raises:
            OSError: if the file cannot be written.
        """
        from keras_initkit.report._io import write_json

        write_json(self, path)

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> SignalReport:
        """The report that `to_json` wrote, to the last bit.

        Raises:
            ValueError: if the file holds no report, or one of another format version.
            OSError: if the file cannot be read.
        """
        from keras_initkit.report._io import read_json

        arguments = read_json(path)
        return cls(**{**arguments, "rows": tuple(TensorStats(**row) for row in arguments["rows"])})
