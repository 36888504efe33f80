"""Statistics over all layers: the few lines of a run that TensorBoard's own tabs show.

TensorBoard colors lines by run, not by tag, so a line for each layer is a tangle in one color. Three lines for each
statistic, the smallest, the median and the largest of the layers, read alike for ten layers and for a thousand.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from keras_initkit.report._health import signal_decades
from keras_initkit.report._report import SignalReport

SIGNAL = {
    "activation_variance": "Signal decades/forward",
    "activation_gradient_variance": "Signal decades/backward",
}
NONFINITE = "Values/NaN or infinite"
# The first letter is a capital, by which TensorBoard sorts these groups before those of single layers.
_TITLES = {
    "dead_units": "Units/dead",
    "saturated_units": "Units/saturated",
    "update_ratio": "Weights log10/update ratio",
    "weight_gradient_variance": "Weights log10/gradient variance",
}
_ZERO = -38.0  # where the logarithm of 0 is drawn: the end of what float32 can hold
_NO_UPDATE = -8.0  # where an update ratio is drawn that moves no weight in float32
_CHARTS = {
    "Signal decades/forward": "forward signal: decades from the input",
    "Signal decades/backward": "backward signal: decades from the loss",
    "Units/dead": "dead units: fraction",
    "Units/saturated": "saturated units: fraction",
    "Weights log10/update ratio": "update ratio: log10, about -3 is usual",
    "Weights log10/gradient variance": "variance of weight gradients: log10",
    NONFINITE: "elements that are NaN or infinite",
}


def over_layers(report: SignalReport, values: Mapping[str, float]) -> dict[str, float]:
    """Returns the smallest, median and largest value over the layers, by tag.

    The signal is in decades from where it enters, and what spans decades is a logarithm, because the charts of
    TensorBoard are linear. A layer whose value is NaN or infinite is left out; elements that are not finite are summed.

    Args:
        report: The measured step.
        values: Its scalars by the tags `<statistic>/<layer>`.
    """
    by_statistic: dict[str, list[float]] = {}
    for tag, value in values.items():
        by_statistic.setdefault(tag.partition("/")[0], []).append(value)
    signal = dict(zip(SIGNAL, signal_decades(report), strict=True)) if SIGNAL.keys() & by_statistic.keys() else {}
    tags: dict[str, float] = {}
    for name, numbers in by_statistic.items():
        if name == "nonfinite":
            tags[NONFINITE] = sum(numbers)
        elif name in SIGNAL:
            tags |= _quantiles(SIGNAL[name], [max(decades, _ZERO) for decades in signal[name].values()])
        else:
            title = _TITLES.get(name) or f"Statistics{' log10' * name.endswith('_variance')}/{name}"
            shown = [_log10(number) for number in numbers] if " log10/" in title else numbers
            tags |= _quantiles(title, [max(v, _NO_UPDATE) for v in shown] if name == "update_ratio" else shown)
    return tags


def find_charts(tags: Mapping[str, float]) -> dict[str, str]:
    """Returns titles of charts by what they show: a tag, or quantiles less their last word. What is 0 needs none."""
    shown = (tag.rpartition(" ")[0] if tag != NONFINITE else tag for tag, value in tags.items() if value)
    return {tag: _CHARTS.get(tag, tag.partition("/")[2]) for tag in shown}


def _quantiles(title: str, values: Iterable[float]) -> dict[str, float]:
    """Returns three tags with their values; none where no value is finite, since a chart takes all three or none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return {}
    return {f"{title} min": min(finite), f"{title} median": statistics.median(finite), f"{title} max": max(finite)}


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else _ZERO if value == 0 else math.nan
