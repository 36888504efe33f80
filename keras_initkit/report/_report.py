"""What was measured at one point of training."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_initkit._checks import Layers
from keras_initkit.report import (
    _io,
    _model_explorer,
    _render_attention,
    _render_figures,
    _render_html,
    _render_text,
    _scalars,
)
from keras_initkit.report._data import ReportData, title
from keras_initkit.report._flow import LayerFlow
from keras_initkit.report._health import layer_health, select_layers
from keras_initkit.report._rows import TensorStats
from keras_initkit.report._tables import WIDTH, render_text, terminal_width
from keras_initkit.statistics._tap import Tap

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions, Group
    from rich.table import Table


class SignalReport(ReportData):
    """Statistics of every tensor that was measured, at one point of training.

    Args:
        rows: A `TensorStats` for each tensor, layers in the order in which they were called. A tensor that does not
            exist (a frozen layer's gradient) has none.
        step: Integer. Number of training steps done before the measured one.
        epoch: Integer. Epoch of the measured step, from 0.
        model: String. Name of the model.
        notes: Strings. What a reader has to know: where inputs or gradients came from, what could not be measured
            or predicted.
        attention: An `AttentionStats` for each attention that a probe has read.
        residuals: A `ResidualStats` for each residual branch of a model with attention.
        order: An `OrderStats` for each input of tokens that attention reads.
        loss: Float. The loss that the gradients are of, where it was measured; `None` without labels.
        references: A `TensorStats` for each tensor of a layer that is left out here (`report["dense_1"]`) by which
            those that are here are judged.
        flow: A `LayerFlow` for each layer of the model: what it reads, and by which measure its signal is judged.
            Without, both are guessed from the order of the rows.
    """

    @classmethod
    def from_step(
        cls, step: int, epoch: int, rows: Iterable[TensorStats], flow: Iterable[LayerFlow] = ()
    ) -> SignalReport:
        """Returns the report of one training step."""
        return cls(tuple(rows), step, epoch, flow=tuple(flow))

    of_step = from_step

    def statistic(self, name: str) -> dict[str, float]:
        """Returns one statistic by layer, such as `"activation_variance"`, for the layers to which it applies.

        All calls and outputs of a layer count together, or all its kernels (weights of two axes or more; where it
        has none, all weights that it trains).

        Args:
            name: String. One of `STATISTICS`; `register_statistic` adds others.

        Raises:
            ValueError: If the name is unknown.
        """
        return _scalars.read_statistics(self.rows, (_scalars.check_statistic(name),), self.attention)[name]

    def scalars(self, statistics: Iterable[str] | None = None) -> dict[str, float]:
        """Returns statistics of every layer by their tags `<statistic>/<layer>`.

        Args:
            statistics: Strings. Names of statistics; `None` means all of `STATISTICS`.

        Raises:
            ValueError: If a name is unknown.
        """
        names = _scalars.check_statistics(_scalars.STATISTICS if statistics is None else statistics)
        values = _scalars.read_statistics(self.rows, names, self.attention)
        return {f"{name}/{layer}": value for name, layers in values.items() for layer, value in layers.items()}

    @property
    def first_nonfinite(self) -> Tap | None:
        """First tensor with a NaN or an infinity; `None` if all are finite.

        First in the order in which a step makes them: weights, outputs forward, gradients backward, weight
        gradients, updates.
        """
        row = _scalars.first_nonfinite(self.rows)
        return None if row is None else row.tap

    @property
    def healthy(self) -> dict[str, bool]:
        """Whether each layer is healthy, as `diagnose`, tables and figures say, for the layers that can be judged.

        A layer is healthy if its signal is within a factor of 10,000 (100 in standard deviations) of where the signal
        enters, everything measured of it is finite, and no more of its units are dead or saturated than chance makes.
        Forward, the variance of the output counts; backward, the sum of squares of the gradient for one example. The
        signal enters with the first layer whose scale matters, backward with the last one. It does not matter at the
        model's output, before a normalization, and in a residual branch, where the stream is judged.
        """
        return layer_health(self)

    def table(self, folded: bool = True, width: int = WIDTH) -> Table:
        """Returns a table with a row for each call of a layer.

        Each row has the output's mean and standard deviation (sd), the sd that theory expects, the
        pre-activation's, the gradient's at the output and theory's, and the fractions of dead and saturated units.
        Yellow with a `!` is not `healthy`, red with `!!` lost or not finite. Columns without any value are left out, as
        are the notes, which `print(report)` has under the table.

        Args:
            folded: Boolean. Whether a model of more than 30 rows is cut to both ends, samples between them and what
                stands out. A row then gives the range of the others.
            width: Integer. Columns of the terminal. Where there is no room, less important columns are left out and
                names of layers lose their middle; numbers stay whole. `print(report)` takes the terminal's.
        """
        return _render_text.draw_table(self, folded, width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Group]:
        yield _render_text.render_rich(self, _render_attention.make_sections(self), options.max_width)

    def __repr__(self) -> str:
        bad = [layer for layer, is_healthy in self.healthy.items() if not is_healthy]
        about = f", not healthy: {', '.join(bad[:3])}{f' and {len(bad) - 3} more' * (len(bad) > 3)}" if bad else ""
        count = f"{len(self)} layer{'s' * (len(self) != 1)}"
        return f"<{title(self.model, data=self).replace('Signal', type(self).__name__, 1)}: {count}{about}>"

    def __str__(self) -> str:
        return render_text(self, terminal_width())

    def __len__(self) -> int:
        """Number of measured layers."""
        return len(self.layers)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        """Iterates over the paths of the measured layers."""
        return iter(self.layers)

    def __contains__(self, layer: object) -> bool:
        return layer in self.layers

    def __getitem__(self, key: str | int | slice) -> SignalReport:
        """Returns the report of some layers, judged as in the whole: `report["dense_1"]`, `report[-1]`, `report[2:5]`.

        Args:
            key: String, a layer's path; integer, its place; or a slice of places.

        Raises:
            KeyError: If no layer of this path was measured.
            IndexError: If there is none at this place.
        """
        layers = self.layers
        if isinstance(key, str):
            if key not in layers:
                near = difflib.get_close_matches(key, layers, n=3)
                meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
                raise KeyError(f"{key!r} is no measured layer of this report, which has {len(layers)}.{meant}")
            return select_layers(self, [key])
        return select_layers(self, layers[key] if isinstance(key, slice) else [layers[key]])

    def _repr_html_(self) -> str:
        return _render_html.render_html(self, _render_attention.make_sections(self))

    def plot(
        self,
        after: SignalReport | None = None,
        *,
        layers: Layers = None,
        statistic: str | None = None,
        ax: Axes | Sequence[Axes] | None = None,
    ) -> Figure:
        """Draws histograms of activations, and the signal by depth, forward and backward.

        Above are the histograms of at most eight layers, evenly spread, each in its own standard deviation. Below is
        the signal of each layer as a factor from where it enters, beside theory's; a variance within 10,000x is
        healthy, and white.
        Layers outside are named, and the title says what is worst. A signal of 0 or one that is not finite is marked at
        the edge and named. Layers whose scale does not matter, such as those before a normalization, are left out.

        Args:
            after: Another report, such as one of the same model after `initialize`, drawn beside this one.
            layers: String, compiled regular expression, or a list of them. Layers to draw: paths, names, patterns with
                `*`. `None` means all.
            statistic: String. Name of one of `STATISTICS` to draw by layer instead.
            ax: Matplotlib axes to draw into instead of a new figure, without histograms: one for both directions, or
                a pair, forward and backward.

        Returns:
            A Matplotlib figure, which a notebook shows.

        Raises:
            ValueError: If a layer or the statistic is unknown, or an argument is of another type.
        """
        return _render_figures.draw_report(self, after, layers=layers, statistic=statistic, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data: `model`, `step`, `epoch`, `notes`, `rows`, a dictionary for each tensor, and `loss`.

        A row names its tensor (`kind`, `layer`, `call`, `name`, `layer_type`, `shape`) and holds its moments
        (`count`, `mean`, `m2`, `minimum`, `maximum`, `zeros`, `nonfinite`, `variance`, `stddev`,
        `zero_fraction`), the other fields of `TensorStats`, `predicted_mean` and `predicted_variance`. `attention`,
        `residuals` and `order` hold the fields of their rows, where there are any.
        """
        return _io.report_to_dict(self)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a line for each tensor: the rows of `to_dict` without the histograms.

        Raises:
            OSError: If the file cannot be written.
        """
        _io.write_csv(self, path)

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a pandas data frame with a row for each tensor and the columns of `to_csv`.

        What does not apply to a tensor is missing (NaN, `None`).

        Raises:
            ImportError: If pandas is not installed.
        """
        return _io.make_dataframe(self)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes the whole report; `from_json` reads it back.

        JSON has no word for NaN and infinity; they are written as `null` and as the strings `"Infinity"`,
        `"-Infinity"`. What does not apply to a row is left out.

        Raises:
            OSError: If the file cannot be written.
        """
        _io.write_json(self, path)

    def to_model_explorer(self, path: str | os.PathLike[str]) -> list[str]:
        """Writes the model's graph for Google's Model Explorer, with the table's columns at each layer.

        Beside the graph stand two files of node data, by which Model Explorer colors the nodes: how many decades a
        layer's signal is from where it enters, forward and backward. White is near.

        Args:
            path: String or path. Of `"model.json"` the data are `"model.forward.json"` and `"model.backward.json"`.

        Returns:
            List of the paths of the files.

        Raises:
            OSError: If a file cannot be written.
        """
        return _model_explorer.write_model_explorer(self, path)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> SignalReport:
        """Returns the report that `to_json` wrote, equal to the last bit.

        Raises:
            ValueError: If the file holds no report, or one of another format version.
            OSError: If the file cannot be read.
        """
        return cls(**_io.read_json(path))
