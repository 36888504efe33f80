"""A report as a figure: its lines as the plain numbers that `plots` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_initkit.report._layer_rows import healthy_bands, lines_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_initkit.report._report import SignalReport
    from keras_initkit.report._rows import TensorStats
    from keras_initkit.statistics._host import Histogram


def figure_of(report: SignalReport) -> Figure:
    """Histograms of the layers' activations and variance by depth."""
    from keras_initkit import plots

    lines = lines_of(report)
    outputs, gradients = [line.output for line in lines], [line.gradient for line in lines]
    forward = _known(
        {
            "outputs": _variances(outputs),
            "pre-activations": _variances([line.pre_activation for line in lines]),
            "predicted outputs": _predicted(outputs),
        }
    )
    backward = _known({"gradients": _variances(gradients), "predicted gradients": _predicted(gradients)})
    when = f", epoch {report.epoch}, step {report.step}" if report.step or report.epoch else ""
    return plots.signal_by_depth(
        [line.name for line in lines],
        [_histogram(row) for row in outputs],
        forward,
        backward,
        healthy_bands(lines),
        f"Signal{f' of {report.model}' if report.model else ''}{when}",
    )


def _known(series: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """Those that have a value anywhere."""
    return {name: values for name, values in series.items() if any(value is not None for value in values)}


def _histogram(row: TensorStats | None) -> Histogram | None:
    """The row's histogram; an empty one of a tensor that has no finite element to count."""
    if row is None:
        return None
    if row.histogram is None and row.moments.nonfinite:
        return (0, 0), (0.0, 0.5, 1.0)
    return row.histogram


def _variances(rows: list[TensorStats | None]) -> list[float | None]:
    return [None if row is None else row.moments.variance for row in rows]


def _predicted(rows: list[TensorStats | None]) -> list[float | None]:
    return [None if row is None or row.predicted is None else row.predicted.variance for row in rows]
