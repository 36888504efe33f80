"""Rule for what is no number any more."""

from __future__ import annotations

from collections.abc import Iterator

from keras_initkit.diagnosis.evidence import Evidence
from keras_initkit.diagnosis.finding import Finding

# Where a NaN shows first within one step: it flows forward, back, and into the weights.
_FLOW = ("weight", "input", "pre_activation", "output")
_BACK = ("output_gradient", "pre_activation_gradient", "input_gradient", "weight_gradient")


def nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """NaN or infinity: the first step, and in it the first layer in the order of flow.

    Rule: any element that is not finite. No threshold: one is enough to end training. Weights of a layer count
    before its output, outputs before gradients (which come in the reverse order), gradients before updates.
    """
    for report, readings in zip(evidence.reports, evidence.readings, strict=True):
        forward, backward = list(readings.values()), list(readings.values())[::-1]
        places = [(reading, kind) for reading in forward for kind in _FLOW]
        places += [(reading, kind) for reading in backward for kind in _BACK]
        places += [(reading, "weight_update") for reading in forward]
        for reading, kind in places:
            rows = reading.rows.get(kind, [])
            count = sum(row.moments.nonfinite for row in rows)
            if not count:
                continue
            own = sum(row.moments.count for row in rows)
            yield Finding(
                "nonfinite",
                reading.layer,
                report.step,
                "error",
                {"tensor": kind, "nonfinite": count, "elements_read": own, "healthy": "every element finite"},
                _REMEDIES.get(kind, _REMEDIES["output"]),
            )
            return


_REMEDIES = {
    "weight": "The weights are not finite before the step: load or draw them anew, "
    'keras_initkit.initialize(model, "reset").',
    "input": "The data holds NaN or infinity: np.isfinite(x).all(axis=tuple(range(1, x.ndim))) finds the examples.",
    "output": "Look for a log, a division or a root of 0 in this layer; else lower the learning rate tenfold and clip "
    "gradients: keras.optimizers.Adam(1e-4, global_clipnorm=1.0).",
    "weight_update": "The optimizer's step overflows. Clip gradients: keras.optimizers.Adam(global_clipnorm=1.0).",
}
