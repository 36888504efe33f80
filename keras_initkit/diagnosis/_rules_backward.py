"""Rules for a gradient that is lost or grows on its way back through depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from keras_initkit.diagnosis._evidence import Evidence, Reading, suffix
from keras_initkit.diagnosis._finding import Finding, beyond
from keras_initkit.structure._layer_kinds import is_embedding

VANISHED, EXPLODED = 1e3, 1e2  # ratios of standard deviations; an error at their squares


def vanishing_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Early layers that hardly learn, because the gradient is lost on its way back.

    Rule: from the first kernel to some other, every gradient relative to its kernel (standard deviations) is below
    1/1000 of the last kernel's. Relative to the kernel, since that is what an optimizer's step is measured against; to
    the last one, since all gradients fall as training converges. For a run, in the last three reports. A last kernel
    of 0 passes no gradient on at step 0, on purpose, and is no finding.
    """
    ratios = _lasting(evidence, max, _gradient_to_weight)
    if len(ratios) < 2:
        return
    reference = list(ratios.values())[-1]
    low = suffix(list(ratios)[::-1], [layer for layer, value in ratios.items() if value < reference / VANISHED])
    if not low or reference == 0:
        return
    least = ratios[low[-1]]
    layer = _after(list(ratios), low[0])
    yield Finding(
        "vanishing_gradient",
        layer,
        evidence.reports[-1].step,
        "error" if least < reference / VANISHED**2 else "warning",
        {
            "first_gradient_to_weight": least,
            "last_gradient_to_weight": reference,
            "layers_without_gradient": len(low),
            "healthy": "within a factor of 100 of each other",
        },
        'Use an activation whose slope reaches 1 ("relu", "tanh" in place of "sigmoid") with its own initializer, '
        'keras_initkit.initialize(model, "he_normal"); put keras.layers.LayerNormalization() between the layers, or '
        "add skip connections: x = keras.layers.Add()([x, block(x)]).",
        beyond(least, reference / VANISHED),
    )


def exploding_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Gradients that grow on their way back.

    Rule: the standard deviation of the gradient at the output of a layer with a kernel, and no normalization after it,
    is more than 100 times that at the last such layer, in all of the last three reports. An error at 10,000. The
    kernels' own gradients do not show it: where the signal explodes too, all of them are equally large.
    """
    gradients = _lasting(evidence, min, _gradient)
    if len(gradients) < 2:
        return
    reference = list(gradients.values())[-1]
    high = {layer: value for layer, value in gradients.items() if value > reference * EXPLODED}
    if not high or reference == 0:
        return
    layer, worst = list(high)[-1], max(high.values())
    yield Finding(
        "exploding_gradient",
        layer,
        evidence.reports[-1].step,
        "error" if worst > reference * EXPLODED**2 else "warning",
        {"gradient": worst, "last_gradient": reference, "healthy": "within a factor of 10 of the last layer's"},
        'Draw the kernels on the scale of their layers, keras_initkit.initialize(model, "he_normal"), and clip '
        "gradients until they are found: keras.optimizers.Adam(1e-3, global_clipnorm=1.0).",
        beyond(worst, reference * EXPLODED),
    )


def _lasting(
    evidence: Evidence, choose: Callable[[list[float]], float], figure: Callable[[Reading], float | None]
) -> dict[str, float]:
    """Of each layer with a kernel whose scale matters, the largest (or least) of a figure in the last three reports."""
    found: dict[str, list[float]] = {}
    for readings in evidence.readings[-3:]:
        for layer, reading in readings.items():
            if not reading.has_kernel or is_embedding(reading.layer_type) or layer in evidence.scale_free:
                continue
            value = figure(reading)
            if value is not None and math.isfinite(value):
                found.setdefault(layer, []).append(value)
    return {layer: choose(values) for layer, values in found.items()}


def _gradient(reading: Reading) -> float | None:
    return None if reading.gradient is None else reading.gradient.stddev


def _gradient_to_weight(reading: Reading) -> float | None:
    weight, gradient = reading.weight, reading.weight_gradient
    if weight is None or gradient is None or not weight.stddev > 0 or gradient.stddev == 0:
        return None  # a gradient of exactly 0 did not vanish over depth: something blocks it (`frozen_weights`)
    return gradient.stddev / weight.stddev


def _after(layers: Sequence[str], layer: str) -> str:
    """The next layer, whose kernel the gradient came through."""
    return layers[min(layers.index(layer) + 1, len(layers) - 1)]
