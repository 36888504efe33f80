"""Which layers are healthy: the one rule of tables, figures, logs and the diagnosis.

A layer's signal is what initialization keeps constant over depth: forward the variance of an output, backward the sum
of squares of the gradient for one example. It is compared with that where the signal enters: the first layer whose
scale matters or a normalization, on the way there; backward the last one. Within a factor of `HEALTHY_FACTOR` it is
healthy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from keras_initkit.report._data import ReportData
from keras_initkit.report._flow import LayerFlow
from keras_initkit.report._guessed_flow import guess_flow
from keras_initkit.report._rows import TensorStats
from keras_initkit.report._unit_health import dead_layers, saturated_layers
from keras_initkit.statistics._moments import Moments
from keras_initkit.theory._thresholds import HEALTHY_FACTOR

Mark = Literal["", "outside", "alarm"]
MARKS: tuple[Mark, ...] = ("", "outside", "alarm")  # from healthy to broken
Decades = dict[str, float]
Report = TypeVar("Report", bound=ReportData)
_JUDGED = ("output", "output_gradient", "pre_activation_gradient")


class Entry(NamedTuple):
    """Where a layer's signal enters, and what the ratio of the variances there and here is multiplied by.

    `decades = log10(variance of the layer / variance of the entry * ratio)`.
    """

    layer: str
    ratio: float


def signal_entries(report: ReportData) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """Returns for each judged layer where its signal enters, forward and backward.

    The variances are those that are logged as `activation_variance` and `activation_gradient_variance`; of a layer
    whose `LayerFlow.by_logits` is true, `pre_activation_gradient_variance`. Where the signal enters, a layer is its own
    entry.
    """
    flows = report.flow or guess_flow(report)
    return _entries(report, flows, *_measured(report, flows))


def _entries(
    report: ReportData,
    flows: Sequence[LayerFlow],
    outputs: Mapping[str, Moments],
    gradients: Mapping[str, Moments],
) -> tuple[dict[str, Entry], dict[str, Entry]]:
    forward = {flow.layer: scale for flow in flows if (scale := flow.forward_scale) is not None}
    backward = {flow.layer: scale for flow in flows if (scale := flow.backward_scale) is not None}
    renewed = {flow.layer: scale for flow in flows if (scale := flow.normalized_scale) is not None}
    found = (
        _find_entries(
            flows,
            {layer: scale for layer, scale in forward.items() if layer in outputs},
            {layer: scale for layer, scale in renewed.items() if layer in outputs},
        ),
        _find_entries(_reversed(flows), {layer: scale for layer, scale in backward.items() if layer in gradients}, {}),
    )
    shown = set(report.layers)
    known = [{layer: entry for layer, entry in each.items() if layer in shown} for each in found]
    return known[0], known[1]


def signal_decades(report: ReportData) -> tuple[Decades, Decades]:
    """Returns for each judged layer, forward and backward, how far its signal is from where it enters.

    Decades of the variance: 0 is equal, -4 one ten thousandth. `-inf` where it is 0, NaN where it is not finite.
    A layer that is not judged has none; none has any backward where no gradient enters, or where a kernel that is
    exactly 0 keeps it, as a last one may on purpose.
    """
    flows = report.flow or guess_flow(report)
    outputs, gradients = _measured(report, flows)
    forward, backward = _entries(report, flows, outputs, gradients)
    known = [_decades(outputs, forward), _decades(gradients, backward)]
    entered = any(gradients[entry.layer].variance != 0 for entry in backward.values())
    if not entered or _has_zero_kernel(report):
        known[1] = {layer: value for layer, value in known[1].items() if value != -math.inf}
    return known[0], known[1]


def layer_health(report: ReportData) -> dict[str, bool]:
    """Returns which layers are healthy, for those that are judged."""
    found: dict[str, bool] = {}
    order = {layer: place for place, layer in enumerate(report.layers)}
    for decades in signal_decades(report):
        for layer, value in decades.items():
            found[layer] = found.get(layer, True) and not mark_decades(value)
    for lost in (dead_layers(report), saturated_layers(report)):
        for layer, is_lost in lost.items():
            found[layer] = found.get(layer, True) and not is_lost
    found |= {row.tap.layer: False for row in report.rows if row.moments.nonfinite}
    return {layer: found[layer] for layer in sorted(found, key=order.__getitem__)}


def select_layers(report: Report, layers: Collection[str]) -> Report:
    """Returns the report of some layers, with what the others are needed for to judge them."""
    flow = report.flow or guess_flow(report)
    whole = dataclasses.replace(report, flow=flow)
    entries = {entry.layer for each in signal_entries(whole) for layer, entry in each.items() if layer in layers}
    others = [row for row in (*report.rows, *report.references) if row.tap.layer not in layers]
    needed = [row for row in others if _is_zero_kernel(row)]
    needed += [row for row in others if row.tap.layer in entries and row.tap.kind in _JUDGED]
    return dataclasses.replace(
        whole, rows=tuple(row for row in report.rows if row.tap.layer in layers), references=tuple(needed)
    )


def mark_decades(decades: float | None) -> Mark:
    """Marks what is lost or not finite as alarming, and what is too far from where the signal enters."""
    if decades is None:
        return ""
    if not math.isfinite(decades):
        return "alarm"
    return "outside" if abs(decades) > math.log10(HEALTHY_FACTOR) else ""


def _measured(report: ReportData, flows: Sequence[LayerFlow]) -> tuple[dict[str, Moments], dict[str, Moments]]:
    """Returns the moments of each layer's outputs, and of the gradients there or at the logits."""
    found: dict[str, dict[str, list[TensorStats]]] = {}
    for row in (*report.rows, *report.references):
        found.setdefault(row.tap.kind, {}).setdefault(row.tap.layer, []).append(row)
    logits = {flow.layer for flow in flows if flow.by_logits}
    gradients, before = found.get("output_gradient", {}), found.get("pre_activation_gradient", {})
    chosen = {layer: rows for layer, rows in gradients.items() if layer not in logits}
    chosen |= {layer: rows for layer, rows in before.items() if layer in logits}
    return _merged(found.get("output", {})), _merged(chosen)


def _merged(rows: Mapping[str, Sequence[TensorStats]]) -> dict[str, Moments]:
    merged = {
        layer: several[0].moments if len(several) == 1 else Moments.merged(row.moments for row in several)
        for layer, several in rows.items()
    }
    return {layer: moments for layer, moments in merged.items() if moments.count}


def _find_entries(
    flows: Sequence[LayerFlow], scales: Mapping[str, float], renewed: Mapping[str, float]
) -> dict[str, Entry]:
    """Returns for each layer that is judged where its signal enters; `flows` in the order of the signal.

    That is the first layer judged of those that lead to it, or the last one where the signal is `renewed`.
    """
    places = {flow.layer: place for place, flow in enumerate(flows)}
    known = {**renewed, **scales}
    first: dict[str, str] = {}
    for flow in flows:
        before = [] if flow.layer in renewed else [first[path] for path in flow.inputs if path in first]
        if before or flow.layer in known:
            first[flow.layer] = min(before, key=places.__getitem__) if before else flow.layer
    return {layer: Entry(first[layer], scale / known[first[layer]]) for layer, scale in scales.items()}


def _reversed(flows: Sequence[LayerFlow]) -> list[LayerFlow]:
    """Returns the way of the gradients: each layer reads those that have read it."""
    readers: dict[str, list[str]] = {flow.layer: [] for flow in flows}
    for flow in flows:
        for path in flow.inputs:
            readers.get(path, []).append(flow.layer)
    return [LayerFlow(flow.layer, tuple(readers[flow.layer])) for flow in reversed(flows)]


def _decades(moments: Mapping[str, Moments], entries: Mapping[str, Entry]) -> Decades:
    found = {}
    for layer, (entry, ratio) in entries.items():
        value, at_entry = moments[layer].variance, moments[entry].variance
        if not math.isfinite(value) or not math.isfinite(at_entry):
            found[layer] = math.nan
        elif value == 0:
            found[layer] = -math.inf
        else:  # logarithms one by one: the quotient may be too large for a number
            found[layer] = math.log10(value) - math.log10(at_entry) + math.log10(ratio) if at_entry > 0 else math.nan
    return found


def _has_zero_kernel(report: ReportData) -> bool:
    return any(map(_is_zero_kernel, (*report.rows, *report.references)))


def _is_zero_kernel(row: TensorStats) -> bool:
    return row.tap.kind == "weight" and len(row.shape or "--") > 1 and row.moments.minimum == row.moments.maximum == 0
