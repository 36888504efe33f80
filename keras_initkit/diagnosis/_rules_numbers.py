"""Rule for what is no number any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.report._report import SignalReport

# Where a NaN shows first within one step: it flows forward, back, and into the weights.
_FLOW = ("weight", "input", "pre_activation", "output")
_BACK = ("output_gradient", "pre_activation_gradient", "input_gradient", "weight_gradient")


def nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """NaN or infinity: the first step since which it is there, and in it the first layer in the order of flow.

    Rule: any element that is not finite in the last report. No threshold: one is enough to end training. A layer's
    weights count before its output, outputs before gradients (which come in the reverse order), gradients before
    updates. Under loss scaling, which tries scales until gradients overflow, three reports in a row.
    """
    begin = first_of_the_last_nonfinite(evidence.reports)
    trial = evidence.structure is not None and evidence.structure.scales_loss and begin + 3 > len(evidence.reports)
    if begin == len(evidence.reports):
        return
    readings = evidence.readings[begin]
    forward, backward = list(readings.values()), list(readings.values())[::-1]
    places = [(reading, kind) for reading in forward for kind in _FLOW]
    if not trial:
        places += [(reading, kind) for reading in backward for kind in _BACK]
        places += [(reading, "weight_update") for reading in forward]
    for reading, kind in places:
        rows = reading.rows.get(kind, [])
        count = sum(row.moments.nonfinite for row in rows)
        if count:
            yield Finding(
                "nonfinite",
                reading.layer,
                evidence.reports[begin].step,
                "error",
                {"tensor": kind, "nonfinite": count, "healthy": "every element finite"},
                _REMEDIES.get(kind, _REMEDIES["output"]),
            )
            return


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
