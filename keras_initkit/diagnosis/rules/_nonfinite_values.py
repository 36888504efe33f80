"""The rule for NaN and infinity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.diagnosis._rule_registry import SCALE_CAUSES, TASK_CAUSES, register_rule
from keras_initkit.diagnosis.rules._advice import BY_HAND, lower_rate
from keras_initkit.report._report import SignalReport
from keras_initkit.report._scalars import first_nonfinite
from keras_initkit.theory._thresholds import LASTING_REPORTS

_FORWARD = ("weight", "input", "pre_activation", "output")
_REMEDIES = {
    "weight": "The weights are not finite before the step: load or re-initialize them, "
    '`keras_initkit.initialize(model, "reset")`.',
    "input": "The data has NaN or infinity. Leave those examples out, of the labels too: "
    "`import numpy as np; x = x[np.isfinite(x).all(axis=tuple(range(1, x.ndim)))]`.",
}
_UNDEFINED = "look for a log, a division or a root of 0 in this layer."


@register_rule("nonfinite", causes=(*TASK_CAUSES, *SCALE_CAUSES, "exploding_activation", "exploding_gradient"))
def find_nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """Finds NaN or infinity: the first step since which it is there, and in it the first tensor of the step.

    Any element that is not finite in the last report counts: one is enough to end training. The first tensor is that
    of `report.first_nonfinite`: weights, outputs forward, gradients backward, updates. Under loss scaling, which tries
    scales until gradients overflow, and in loops that are written by hand, which may do so unseen, gradients have to be
    so in three reports in a row.
    """
    begin = find_nonfinite_start(evidence.reports)
    if begin == len(evidence.reports):
        return
    is_recent = begin + LASTING_REPORTS > len(evidence.reports)
    scales = evidence.model is not None and (evidence.model.scales_loss or evidence.model.is_by_hand)  # may do so
    forward_only = scales and is_recent
    report = evidence.reports[begin]
    first = first_nonfinite([row for row in report.rows if not forward_only or row.tap.kind in _FORWARD])
    if first is None:
        return
    kind, layer = first.tap.kind, first.tap.layer
    remedy = _REMEDIES.get(kind, BY_HAND + _UNDEFINED)
    if evidence.is_run and kind != "input" and (begin > 0 or kind == "weight_update"):  # a step has broken it
        remedy = f"{lower_rate(evidence)}. If that is no help, {_UNDEFINED}"
    count = sum(row.moments.nonfinite for row in evidence.readings[begin][layer].rows[kind])
    yield Finding(
        "nonfinite",
        layer,
        report.step,
        "error",
        {"tensor": kind, "nonfinite": count, "healthy": "every element finite"},
        remedy,
        message=f"{count} elements of the {kind.replace('_', ' ')} of {layer} are NaN or infinite.",
    )


def find_nonfinite_start(reports: Sequence[SignalReport]) -> int:
    """Returns the index from which on all reports have NaN or infinity; their number if the last one has none."""
    start = len(reports)
    while start and reports[start - 1].first_nonfinite is not None:
        start -= 1
    return start
