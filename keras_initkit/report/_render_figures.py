"""Reports as figures: their numbers, drawn by `plots`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_initkit.report._data import ReportData, title
from keras_initkit.report._health import signal_entries
from keras_initkit.report._layer_rows import read_layer_rows
from keras_initkit.report._rows import TensorStats
from keras_initkit.report._scalars import read_statistics
from keras_initkit.statistics._host import Histogram
from keras_initkit.theory._thresholds import HEALTHY_FACTOR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Series = list[float | None]


def draw_report(report: ReportData) -> Figure:
    """Draws histograms of the layers' activations and the variance by depth."""
    from keras_initkit import plots

    rows = read_layer_rows(report)
    outputs, gradients = [row.output for row in rows], [row.gradient for row in rows]
    forward = {
        "outputs": _variances(outputs),
        "pre-activations": _variances([row.pre_activation for row in rows]),
        "predicted outputs": _predicted_variances(outputs),
    }
    backward = {"gradients": _variances(gradients), "predicted gradients": _predicted_variances(gradients)}
    return plots.signal_by_depth(
        [row.name for row in rows],
        [_histogram(stats) for stats in outputs],
        _without_empty(forward),
        _without_empty(backward),
        (_forward_band(report), None),
        title(report.model, data=report),
    )


def draw_history(reports: Sequence[ReportData], model: str = "") -> Figure:
    """Draws heat maps of the variance by layer and step; layers of which only weights were read are left out."""
    from keras_initkit import plots

    names = ("activation_variance", "activation_gradient_variance")
    by_step = [read_statistics(report.rows, names) for report in reports]
    measured = {layer for values in by_step for name in names for layer in values[name]}
    layers = [layer for layer in dict.fromkeys(x for report in reports for x in report.layers) if layer in measured]
    forward, backward = ([[values[name].get(layer) for values in by_step] for layer in layers] for name in names)
    steps = [report.step for report in reports]
    return plots.variance_over_training(layers, steps, forward, backward, title(model, " over training"))


def _forward_band(report: ReportData) -> tuple[float, float] | None:
    """Returns the range of healthy variances around where the signal enters first."""
    entry = next((each.layer for each in signal_entries(report)[0].values()), None)
    value = read_statistics(report.rows, ["activation_variance"])["activation_variance"].get(entry or "", 0.0)
    return (value / HEALTHY_FACTOR, value * HEALTHY_FACTOR) if 0 < value < math.inf else None


def _without_empty(series: Mapping[str, Series]) -> dict[str, Series]:
    return {name: values for name, values in series.items() if any(value is not None for value in values)}


def _histogram(stats: TensorStats | None) -> Histogram | None:
    """Returns the histogram; an empty one for a tensor that has no finite element to count."""
    if stats is not None and stats.histogram is None and stats.moments.nonfinite:
        return (0, 0), (0.0, 0.5, 1.0)
    return None if stats is None else stats.histogram


def _variances(measured: Sequence[TensorStats | None]) -> Series:
    return [None if stats is None else stats.moments.variance for stats in measured]


def _predicted_variances(measured: Sequence[TensorStats | None]) -> Series:
    return [None if stats is None or stats.predicted is None else stats.predicted.variance for stats in measured]
