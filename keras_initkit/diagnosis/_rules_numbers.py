"""Rule for what is no number any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.report._report import SignalReport
from keras_initkit.report._scalars import first_nonfinite

_FORWARD = ("weight", "input", "pre_activation", "output")


def nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """Finds NaN or infinity: the first step since which it is there, and in it the first tensor of the step.

    Rule: any element that is not finite in the last report. No threshold: one is enough to end training. The first
    tensor is that of `report.first_nonfinite`: weights, outputs forward, gradients backward, updates. Under loss
    scaling, which tries scales until gradients overflow, three reports in a row.
    """
    begin = first_of_the_last_nonfinite(evidence.reports)
    trial = evidence.structure is not None and evidence.structure.scales_loss and begin + 3 > len(evidence.reports)
    if begin == len(evidence.reports):
        return
    report = evidence.reports[begin]
    first = first_nonfinite([row for row in report.rows if not trial or row.tap.kind in _FORWARD])
    if first is None:
        return
    kind, layer = first.tap.kind, first.tap.layer
    count = sum(row.moments.nonfinite for row in evidence.readings[begin][layer].rows[kind])
    yield Finding(
        "nonfinite",
        layer,
        report.step,
        "error",
        {"tensor": kind, "nonfinite": count, "healthy": "every element finite"},
        _REMEDIES.get(kind, _REMEDIES["output"]),
    )


def first_of_the_last_nonfinite(reports: Sequence[SignalReport]) -> int:
    """Place of the report from which on all hold NaN or infinity; their number where the last one does not."""
    place = len(reports)
    while place and any(row.moments.nonfinite for row in reports[place - 1].rows):
        place -= 1
    return place


_REMEDIES = {
    "weight": "The weights are not finite before the step: load or draw them anew, "
    'keras_initkit.initialize(model, "reset").',
    "input": "The data holds NaN or infinity: np.isfinite(x).all(axis=tuple(range(1, x.ndim))) finds the examples.",
    "output": "Look for a log, a division or a root of 0 in this layer; else lower the learning rate tenfold and clip "
    "gradients: keras.optimizers.Adam(1e-4, global_clipnorm=1.0).",
    "weight_update": "The optimizer's step overflows. Clip gradients: keras.optimizers.Adam(global_clipnorm=1.0).",
}
