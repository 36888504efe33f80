"""Rules for gradients that vanish or explode on their way back through depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, Severity, confidence_beyond, format_factor
from keras_initkit.diagnosis._readings import LayerReading
from keras_initkit.diagnosis._rule_registry import SCALE_CAUSES, TASK_CAUSES, register_rule
from keras_initkit.diagnosis.context._recurrent_growth import growth_over_steps
from keras_initkit.diagnosis.task._task_remedies import layer_code, recompile_code, write_remedy
from keras_initkit.report._health import Decades, mark_decades
from keras_initkit.structure._layer_kinds import activation_name, is_recurrent, own_activation
from keras_initkit.theory._thresholds import EXPLODED_GRADIENT, HEALTHY_FACTOR, LASTING_REPORTS, VANISHED_GRADIENT


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

    The gradient at the output of a layer, as the sum of its squares for one example, is below 1/10,000 of that at the
    last layer, in all of the last three reports; a warning below a millionth, for an auto-encoder of two latent units
    loses a hundred thousandth where it narrows, and trains. Relative to the last one, since all gradients fall as
    training converges; the sum, because pooling over many positions takes nothing from it that the kernels before would
    miss. An error below 1e-8. A gradient of exactly 0 did not vanish over depth: something blocks it
    (`frozen_weights`), or a last kernel of 0 passes none on at step 0, on purpose.
    """
    decades = {layer: value for layer, value in _lasting_decades(evidence, max).items() if math.isfinite(value)}
    low = [layer for layer, value in decades.items() if mark_decades(value) and value < 0]
    if low:
        worst = min(low, key=decades.__getitem__)
        yield _report_gradient(evidence, "vanishing_gradient", low, worst, decades[worst])


@register_rule("exploding_gradient", causes=(*TASK_CAUSES, *SCALE_CAUSES, "exploding_activation"), direction="backward")
def find_exploding_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Finds gradients that grow on their way back.

    The sum of squares of the gradient at the output of a layer for one example is more than 10,000 times that at the
    last layer, in all of the last three reports. An error above the square of that. The kernels' own gradients do not
    show it: where the signal explodes too, all of them are equally large. Or, before training, that within a recurrent
    layer, over the steps of its sequence.
    """
    yield from _over_steps(evidence)
    decades = {layer: value for layer, value in _lasting_decades(evidence, min).items() if math.isfinite(value)}
    high = [layer for layer, value in decades.items() if mark_decades(value) and value > 0]
    if high:
        worst = max(high, key=decades.__getitem__)
        yield _report_gradient(evidence, "exploding_gradient", high, worst, decades[worst])


def _report_gradient(evidence: Evidence, kind: str, outside: list[str], worst: str, decades: float) -> Finding:
    entry = evidence.entries(-1)[1][worst].layer
    value, reference = (_gradient(evidence.last[layer]) for layer in (worst, entry))
    factor, sign = 10.0 ** (abs(decades) / 2), math.copysign(1.0, decades)
    limit = math.sqrt(HEALTHY_FACTOR)
    vanishes = decades < 0
    return Finding(
        kind,
        outside[-1],  # where it leaves what is healthy, seen from the output
        evidence.reports[-1].step,
        _grade(decades),
        {
            "gradient": value,
            "last_gradient": reference,
            "factor": factor**sign,
            "layers_outside": len(outside),
            "healthy": f"within a factor of {limit:g} of the last layer's",
        },
        _steepen(evidence)
        if vanishes
        else 'Draw every kernel on the scale of its layer: `keras_initkit.initialize(model, "auto")`.',
        confidence_beyond(factor**sign, limit**sign),
        message=f"The gradient of one example {'shrinks' if vanishes else 'grows'} {format_factor(factor)}-fold on its "
        f"way back from {entry} to {worst}, and is too {'small' if vanishes else 'large'} in {len(outside)} "
        f"layer{'s' * (len(outside) != 1)}; healthy networks stay within {limit:g}x.",
    )


def _grade(decades: float) -> Severity:
    if abs(decades) > 2 * math.log10(HEALTHY_FACTOR):
        return "error"
    return "info" if -math.log10(VANISHED_GRADIENT) <= decades < 0 else "warning"


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


def _lasting_decades(evidence: Evidence, choose: Callable[[list[float]], float]) -> Decades:
    """For each judged layer, the largest (or smallest) distance from the last layer's gradient in the last reports."""
    found: dict[str, list[float]] = {}
    for place in range(-min(LASTING_REPORTS, len(evidence.reports)), 0):
        for layer, value in evidence.decades(place)[1].items():
            if not math.isnan(value):
                found.setdefault(layer, []).append(value)
    last = evidence.decades(-1)[1]
    return {layer: choose(values) for layer, values in found.items() if layer in last}


def _gradient(reading: LayerReading) -> float:
    return math.nan if reading.gradient is None else reading.gradient.stddev
