"""A report as a figure: its lines as the plain numbers that `plots` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_initkit.signal.report_lines import healthy_bands, lines_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_initkit.signal.report import SignalReport, TensorStats


def figure_of(report: SignalReport) -> Figure:
    """Histograms of the layers' activations and variance by depth."""
    from keras_initkit import plots

    lines = lines_of(report)
    outputs, gradients = [line.output for line in lines], [line.gradient for line in lines]
    forward = {
        "outputs": _variances(outputs),
        "pre-activations": _variances([line.pre_activation for line in lines]),
        "predicted outputs": _predicted(outputs),
    }
    backward = {"gradients": _variances(gradients), "predicted gradients": _predicted(gradients)}
    when = f", epoch {report.epoch}, step {report.step}" if report.step or report.epoch else ""
    return plots.signal_by_depth(
        [line.name for line in lines],
        [None if row is None else row.histogram for row in outputs],
        *({name: s for name, s in series.items() if any(v is not None for v in s)} for series in (forward, backward)),
        healthy_bands(lines),
        f"Signal{f' of {report.model}' if report.model else ''}{when}",
    )


def _variances(rows: list[TensorStats | None]) -> list[float | None]:
    return [None if row is None else row.moments.variance for row in rows]


def _predicted(rows: list[TensorStats | None]) -> list[float | None]:
    return [None if row is None or row.predicted is None else row.predicted.variance for row in rows]
