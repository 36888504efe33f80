"""Reports as figures: their numbers, drawn by `plots`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_initkit._checks import Layers, choose_layers
from keras_initkit.report._data import ReportData, title
from keras_initkit.report._health import signal_decades
from keras_initkit.report._rows import TensorStats
from keras_initkit.report._scalars import check_statistic, read_statistics
from keras_initkit.theory._thresholds import HEALTHY_FACTOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_initkit.plots import LayerHistogram

Decades = list[float | None]
HEALTHY = math.log10(HEALTHY_FACTOR)
_KINDS = (("output",), ("output_gradient", "pre_activation_gradient"))
_FRACTIONS = {"dead_units", "saturated_units", "saturated", "attention_future", "attention_padding"}


def draw_report(
    report: ReportData,
    after: ReportData | None = None,
    *,
    layers: Layers = None,
    statistic: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draws histograms of the layers' activations and the signal by depth, or one statistic by layer."""
    from keras_initkit import plots

    if after is not None and not isinstance(after, ReportData):
        raise ValueError(f"after: got {type(after).__name__}, expected a SignalReport, such as probe() returns.")
    states = {"measured": report} if after is None else {"before": report, "after": after}
    heading = title(report.model, data=report if after is None else None).removeprefix("Signal of ")
    if statistic is not None:
        values = {state: _statistic(each, statistic) for state, each in states.items()}
        names = choose_layers(_in_order(states.values(), set().union(*values.values())), layers)
        lines = {state: [each.get(name) for name in names] for state, each in values.items()}
        limits = (0.0, 1.0) if statistic in _FRACTIONS else None
        return plots.statistic_by_layer(statistic, names, lines, limits=limits, title=heading, ax=ax)  # type: ignore
    decades = {state: _decades(each) for state, each in states.items()}
    last = list(states)[-1]
    others = [_not_judged(states[last], kind, each) for kind, each in zip(_KINDS, decades[last], strict=True)]
    drawn = {layer for each in (*others, *(each for pair in decades.values() for each in pair)) for layer in each}
    chosen = choose_layers(_in_order(states.values(), set().union(*(each.layers for each in states.values()))), layers)
    names = [name for name in chosen if name in drawn]
    forward: dict[str, Decades] = {}
    backward: dict[str, Decades] = {}
    for direction, (series, kind) in enumerate(zip((forward, backward), _KINDS, strict=True)):
        lines = {state: [pair[direction].get(name) for name in names] for state, pair in decades.items()}
        lines["not judged"] = [others[direction].get(name) for name in names]
        lines["theory"] = _theory(states[last], names, decades[last][direction], kind)
        series.update({name: values for name, values in lines.items() if any(v is not None for v in values)})
    histograms = {state: _histograms(each, set(chosen)) for state, each in states.items()}
    return plots.signal_by_depth(names, forward, backward, histograms, healthy=HEALTHY, title=heading, ax=ax)


def draw_history(
    reports: Sequence[ReportData],
    model: str = "",
    *,
    layers: Layers = None,
    statistic: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draws heat maps of the signal, or of one statistic, by layer and step."""
    from keras_initkit import plots

    steps, heading = [report.step for report in reports], title(model, " over training").removeprefix("Signal of ")
    if statistic is not None:
        by_step = [_statistic(report, statistic) for report in reports]
        names = choose_layers(_in_order(reports, set().union(*by_step)), layers)
        limits = (0.0, 1.0) if statistic in _FRACTIONS else None
        return plots.statistic_over_training(
            statistic, names, steps, _cells(names, by_step), limits=limits, title=heading, ax=ax  # type: ignore
        )  # fmt: skip
    decades = [_decades(report) for report in reports]
    others = [
        tuple(_not_judged(report, kinds, each) for kinds, each in zip(_KINDS, pair, strict=True))
        for report, pair in zip(reports, decades, strict=True)
    ]
    measured = {layer for pair in (*decades, *others) for each in pair for layer in each}
    names = choose_layers(_in_order(reports, measured), layers)
    forward, backward = (_cells(names, [pair[direction] for pair in decades]) for direction in (0, 1))
    not_judged = [_cells(names, [pair[direction] for pair in others]) for direction in (0, 1)]
    return plots.signal_over_training(
        names,
        steps,
        forward,
        backward,
        healthy=HEALTHY,
        not_judged=not_judged,
        title=heading,
        ax=ax,  # type: ignore[arg-type]  # it checks what it gets
    )


def _decades(report: ReportData) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the decades of the judged layers, and NaN for all that have a value that is not finite."""
    found = signal_decades(report)
    for decades, kinds in zip(found, _KINDS, strict=True):
        for row in report.rows:
            if row.tap.kind in kinds and row.moments.nonfinite:
                decades[row.tap.layer] = math.nan
    return found


def _statistic(report: ReportData, name: str) -> dict[str, float]:
    return read_statistics(report.rows, (check_statistic(name),), report.attention)[name]


def _in_order(reports: Iterable[ReportData], layers: set[str]) -> list[str]:
    return [name for name in dict.fromkeys(name for report in reports for name in report.layers) if name in layers]


def _cells(names: Sequence[str], by_step: Sequence[Mapping[str, float]]) -> list[Decades]:
    return [[values.get(name) for values in by_step] for name in names]


def _not_judged(report: ReportData, kinds: Sequence[str], judged: Mapping[str, float]) -> dict[str, float]:
    """Returns the signal of the layers whose scale does not matter, relative to the same entry."""
    signal: dict[str, float] = {}
    for row in report.rows:
        if row.tap.kind in kinds and 0 < row.moments.variance < math.inf:
            elements = 1 if kinds == _KINDS[0] else math.prod((row.shape or ())[1:])
            signal.setdefault(row.tap.layer, math.log10(row.moments.variance * max(elements, 1)))
    places = list(signal) if kinds == _KINDS[0] else list(signal)[::-1]
    entry = next((name for name in places if abs(judged.get(name, 1.0)) < 1e-9), places[0] if places else "")
    return {name: value - signal[entry] for name, value in signal.items() if name not in judged}


def _theory(report: ReportData, names: Sequence[str], measured: Mapping[str, float], kinds: Sequence[str]) -> Decades:
    """Returns where theory expects the signal of each layer: as far from the measured as its variance is."""
    expected: dict[str, float] = {}
    for row in report.rows:
        if row.tap.kind in kinds and row.predicted is not None and row.tap.layer not in expected:
            variances = row.predicted.variance, row.moments.variance
            if all(math.isfinite(each) and each > 0 for each in variances):
                expected[row.tap.layer] = math.log10(variances[0] / variances[1])
    return [measured[name] + expected[name] if name in measured and name in expected else None for name in names]


def _histograms(report: ReportData, layers: set[str]) -> list[LayerHistogram]:
    from keras_initkit.plots import LayerHistogram

    found: dict[str, Any] = {}
    for row in report.rows:
        if row.tap.kind == "output" and row.tap.layer in layers and (row.histogram or row.moments.nonfinite):
            found.setdefault(row.tap.layer, _histogram(LayerHistogram, row))
    return list(found.values())


def _histogram(record: type[LayerHistogram], row: TensorStats) -> LayerHistogram:
    """Returns the histogram; an empty one for a tensor that has no finite element to count."""
    counts, edges = row.histogram or ((0, 0), (0.0, 0.5, 1.0))
    moments = row.moments
    return record(row.tap.layer, counts, edges, moments.mean, moments.stddev, moments.zeros)
