"""Rules for gradients that vanish or explode on their way back through depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_beyond, format_factor
from keras_initkit.diagnosis._readings import LayerReading, take_suffix
from keras_initkit.diagnosis._rule_registry import SCALE_CAUSES, TASK_CAUSES, register_rule
from keras_initkit.diagnosis.context._recurrent_growth import growth_over_steps
from keras_initkit.diagnosis.task._task_remedies import layer_code, recompile_code, write_remedy
from keras_initkit.structure._layer_kinds import activation_name, is_recurrent, own_activation
from keras_initkit.theory._thresholds import EXPLODED_GRADIENT, LASTING_REPORTS, VANISHED_GRADIENT


@register_rule(
    "vanishing_gradient",
    causes=(
        *TASK_CAUSES,
        *SCALE_CAUSES,
        "constant_output",
        "symmetric_units",
        "vanishing_activation",
        "saturated_units",
        "dead_units",
    ),
    direction="backward",
)
def find_vanishing_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Finds early layers that hardly learn, because the gradient is lost on its way back.

    From the first kernel to some other, every gradient relative to its kernel (standard deviations) is below 1/1000 of
    the last kernel's. Relative to the kernel, since that is what an optimizer's step is measured against; to the last
    one, since all gradients fall as training converges. A kernel that is itself too large counts as LeCun's would, for
    that is no fault of the way back. For a run, in the last three reports. A last kernel of 0
    passes no gradient on at step 0, on purpose, and is no finding.
    """
    ratios = _lasting(evidence, max, _gradient_to_weight)
    if len(ratios) < 2:
        return
    reference = list(ratios.values())[-1]
    lost = [
        layer for layer, value in ratios.items() if value * _excess(evidence, layer) < reference / VANISHED_GRADIENT
    ]
    low = take_suffix(list(ratios)[::-1], lost)
    if not low:
        return
    least = ratios[low[-1]]
    layer = _after(list(ratios), low[0])
    yield Finding(
        "vanishing_gradient",
        layer,
        evidence.reports[-1].step,
        "error" if least < reference / VANISHED_GRADIENT**2 else "warning",
        {
            "first_gradient_to_weight": least,
            "last_gradient_to_weight": reference,
            "layers_without_gradient": len(low),
            "healthy": "within a factor of 100 of each other",
        },
        _steepen(evidence),
        confidence_beyond(least, reference / VANISHED_GRADIENT),
        message=f"The gradient is lost on its way back: relative to its kernel it is {reference:.3g} in the last layer "
        f"and {least:.3g} in the first one, and too small in {len(low)} layers; healthy networks stay within 100x.",
    )


@register_rule("exploding_gradient", causes=(*TASK_CAUSES, *SCALE_CAUSES, "exploding_activation"), direction="backward")
def find_exploding_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Finds gradients that grow on their way back.

    The standard deviation of the gradient at the output of a layer with a kernel, and no normalization after it, is
    more than 100 times that at the last such layer, in all of the last three reports. An error at 10,000. The kernels'
    own gradients do not show it: where the signal explodes too, all of them are equally large. Or, before training,
    that within a recurrent layer, over the steps of its sequence.
    """
    yield from _over_steps(evidence)
    gradients = _lasting(evidence, min, _gradient)
    if len(gradients) < 2:
        return
    reference = list(gradients.values())[-1]
    high = {layer: value for layer, value in gradients.items() if value > reference * EXPLODED_GRADIENT}
    if not high or not reference > 0:
        return
    layer, worst = list(high)[-1], max(high.values())
    yield Finding(
        "exploding_gradient",
        layer,
        evidence.reports[-1].step,
        "error" if worst > reference * EXPLODED_GRADIENT**2 else "warning",
        {"gradient": worst, "last_gradient": reference, "healthy": "within a factor of 10 of the last layer's"},
        'Draw every kernel on the scale of its layer: `keras_initkit.initialize(model, "auto")`.',
        confidence_beyond(worst, reference * EXPLODED_GRADIENT),
        message=f"The gradient grows {format_factor(worst / reference)}-fold on its way back, from {reference:.3g} "
        f"at the last layer to {worst:.3g}; healthy networks stay within 10x.",
    )


def _over_steps(evidence: Evidence) -> Iterator[Finding]:
    for layer, growth, steps in growth_over_steps(evidence):
        if not growth > EXPLODED_GRADIENT:
            continue
        yield Finding(
            "exploding_gradient",
            layer,
            evidence.reports[0].step,
            "error" if growth > EXPLODED_GRADIENT**2 else "warning",
            {"growth": growth, "steps": steps, "healthy": "at most 1"},
            f'Draw its kernels on their scale: `keras_initkit.initialize(model, "auto", layers="{layer}")`.',
            confidence_beyond(growth, EXPLODED_GRADIENT),
            message=f"Over the {steps} steps of a sequence a small change of the state of {layer} grows "
            f"{format_factor(growth)}-fold, as does the gradient on its way back: the recurrent kernel is too large.",
        )


def _steepen(evidence: Evidence) -> str:
    """Returns the remedy for gradients that vanish: another activation where its slope stays below 1."""
    model, outside = evidence.model, evidence.outputs | evidence.gated
    flat = [] if model is None else [call for call in model.graph if _is_flat(call.layer) and call.path not in outside]
    code = [] if model is None else filter(None, (layer_code(model.model, call.path) for call in flat))
    listed = ", ".join(dict.fromkeys(code))
    if model is None or not listed:
        return (
            'Draw every kernel on the scale of what its layer reads: `keras_initkit.initialize(model, "lsuv", x)`. '
            "Normalization between the layers and skip connections keep gradients alive."
        )
    return write_remedy(
        "Give the layers an activation whose slope reaches 1, and draw their kernels for it (normalization between the "
        "layers and skip connections keep gradients alive too)",
        f"for layer in [{listed}]:",
        "    layer.activation = keras.activations.relu",
        'keras_initkit.initialize(model, "auto")',
        recompile_code(model.model),
    )


def _is_flat(layer: Any) -> bool:
    """Whether the slope of a layer's own activation stays well below 1."""
    activation = own_activation(layer) if isinstance(layer, keras.Layer) and not is_recurrent(layer) else None
    return activation is not None and activation_name(activation) in ("sigmoid", "hard_sigmoid")


def _lasting(
    evidence: Evidence, choose: Callable[[list[float]], float], measure: Callable[[LayerReading], float | None]
) -> dict[str, float]:
    """For each layer with a kernel whose scale matters, the largest (or smallest) value in the last three reports."""
    found: dict[str, list[float]] = {}
    for readings in evidence.readings[-LASTING_REPORTS:]:
        for layer, reading in readings.items():
            if not reading.has_kernel or evidence.is_embedding(reading) or layer in evidence.scale_free:
                continue
            value = measure(reading)
            if value is not None and math.isfinite(value):
                found.setdefault(layer, []).append(value)
    return {layer: choose(values) for layer, values in found.items()}


def _gradient(reading: LayerReading) -> float | None:
    return None if reading.gradient is None else reading.gradient.stddev


def _gradient_to_weight(reading: LayerReading) -> float | None:
    weight, gradient = reading.weight, reading.weight_gradient
    if weight is None or gradient is None or not (weight.stddev > 0 and gradient.stddev > 0):
        return None  # a gradient of exactly 0 did not vanish over depth: something blocks it (`frozen_weights`)
    return gradient.stddev / weight.stddev


def _excess(evidence: Evidence, layer: str) -> float:
    """Returns how many times as large as LeCun's a kernel was at first; 1 if it was smaller."""
    weight, usual = evidence.first[layer].weight, evidence.model and evidence.model.usual_stddev.get(layer)
    return max(weight.stddev / usual, 1.0) if weight is not None and usual else 1.0


def _after(layers: Sequence[str], layer: str) -> str:
    """The next layer, whose kernel the gradient came through."""
    return layers[min(layers.index(layer) + 1, len(layers) - 1)]
