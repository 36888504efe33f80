"""The reports of a training run as plain numbers: the variance of every layer at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_initkit.report._report import SignalReport

Cells = list[list[float | None]]
VARIANCES = ("activation_variance", "activation_gradient_variance")


def variances_over(reports: Sequence[SignalReport]) -> tuple[list[str], Cells, Cells]:
    """Layers, and for each its variances forward and backward by report; `None` where it has none.

    Layers that have neither at any step, of which only weights were read, are left out.
    """
    by_report = [[report.statistic(name) for name in VARIANCES] for report in reports]
    seen = {layer for both in by_report for values in both for layer in values}
    layers = [layer for layer in dict.fromkeys(x for report in reports for x in report.layers) if layer in seen]
    forward, backward = ([[both[i].get(layer) for both in by_report] for layer in layers] for i in (0, 1))
    return layers, forward, backward


def figure_over(reports: Sequence[SignalReport], model: str = "") -> Figure:
    """Heat maps of the variance by layer and step, forward and backward."""
    from keras_initkit import plots

    layers, forward, backward = variances_over(reports)
    caption = f"Signal{f' of {model}' if model else ''} over training"
    return plots.variance_over_training(layers, [report.step for report in reports], forward, backward, caption)
