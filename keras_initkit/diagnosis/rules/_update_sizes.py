"""Rules for how weights move: too little, too much, or not at all."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator

from keras_initkit._arrays import to_numpy
from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_after, confidence_beyond, format_factor
from keras_initkit.diagnosis._readings import LayerReading, is_constant, is_zero
from keras_initkit.diagnosis._rule_registry import TASK_CAUSES, register_rule
from keras_initkit.diagnosis.rules._advice import BY_HAND, find_large_update, lower_rate, multiply_rate, put_optimizer
from keras_initkit.diagnosis.task._task_remedies import layer_code
from keras_initkit.theory._thresholds import (
    GRAVE_UPDATE,
    LASTING_REPORTS,
    SILENT_REPORTS,
    UPDATE_HEALTHY,
    UPDATE_STILL_HEALTHY,
    UPDATE_TOO_LARGE,
    UPDATE_TOO_SMALL,
)

_HEALTHY = "1e-4 to 1e-2"
_NO_GRADIENT = (*TASK_CAUSES, "constant_output", "symmetric_units", "saturated_units", "dead_units")


@register_rule("update_too_small", causes=(*_NO_GRADIENT, "vanishing_gradient"), judges="run", direction="backward")
def find_small_updates(evidence: Evidence) -> Iterator[Finding]:
    """Finds steps so small that weights never get anywhere.

    In every one of three reports or more, the standard deviation of a kernel's update is below a millionth of the
    kernel's, from the first on: a million steps to move by its own size. Every report, since a learning rate may warm
    up; from the first on, since updates of a trained network are small for a reason. Healthy runs lie near 1e-3.
    """
    largest = {layer: max(ratios) for layer, ratios in evidence.update_ratios.items()}
    lasting = {layer for layer, ratios in evidence.update_ratios.items() if len(ratios) >= LASTING_REPORTS}
    slow = {layer: ratio for layer, ratio in largest.items() if layer in lasting and 0 < ratio < UPDATE_TOO_SMALL}
    if not slow or not evidence.is_initial:
        return
    layer = min(slow, key=slow.__getitem__)
    typical = statistics.median(largest.values())
    everywhere = typical < UPDATE_TOO_SMALL and find_large_update(evidence) is None  # one rate, one piece of advice
    healthy = (UPDATE_HEALTHY * UPDATE_STILL_HEALTHY) ** 0.5  # the first steps may be larger than those after them
    factor = float(f"{healthy / typical if typical > 0 else 1e3:.0e}")
    code = multiply_rate(evidence, factor) if everywhere else ""
    yield Finding(
        "update_too_small",
        layer,
        evidence.reports[0].step,
        "error" if typical < UPDATE_TOO_SMALL else "warning",
        {"update_to_weight": slow[layer], "layers": len(slow), "of": len(largest), "healthy": _HEALTHY},
        f"Multiply the learning rate by {factor:.0e}{f': `{code}`' if code else ', in each of the optimizers'}."
        if everywhere
        else "Only some layers stand still, so the learning rate is not to blame: use an optimizer that scales each "
        f"step, `{_scaling_optimizer(evidence)}`, and look for what weakens their gradient.",
        confidence_beyond(slow[layer], UPDATE_TOO_SMALL),
        message=f"No step changes the kernel of {layer} by more than {slow[layer]:.3g} times its size (too little in "
        f"{len(slow)} of {len(largest)} layers); a healthy step is {_HEALTHY} times the size.",
    )


@register_rule("update_too_large", judges="run")
def find_large_updates(evidence: Evidence) -> Iterator[Finding]:
    """Finds steps of the size of the weights themselves.

    The standard deviation of a kernel's update exceeds the kernel's own (one step replaces what was drawn), or, in the
    median and in three reports one after the other, a fifth of it. Healthy runs lie near 1e-3; the first steps of Adam,
    which are as large as its learning rate whatever the gradient, at up to 0.1. Kernels that start near 0 are left out
    until they have grown. The finding has the date and the figures of the first step beyond a fifth: later ones are
    made by the weights that it has broken.
    """
    found = find_large_update(evidence)
    if found is None:
        return
    step, layer, ratio, large = found
    number, worst = len(evidence.update_ratios), max(large.values())
    later = f", and later by {format_factor(worst)} times" if worst > 10 * ratio else ""
    yield Finding(
        "update_too_large",
        layer,
        step,
        "error" if worst > GRAVE_UPDATE else "warning",
        {"update_to_weight": ratio, "largest": worst, "layers": len(large), "of": number, "healthy": _HEALTHY},
        f"{lower_rate(evidence)}.",
        confidence_beyond(ratio, UPDATE_TOO_LARGE),
        message=f"One step changes the kernel of {layer} by {ratio:.3g} times its size{later} (too much in "
        f"{len(large)} of {number} layers); a healthy step is {_HEALTHY} times the size.",
    )


@register_rule("frozen_weights", causes=_NO_GRADIENT, direction="backward")
def find_frozen_weights(evidence: Evidence) -> Iterator[Finding]:
    """Finds trainable weights that the loss does not depend on.

    A trainable kernel has no gradient, or one of 0 in all its elements, in every batch that gives any layer a gradient:
    in a run in three or more of them. If no layer gets a gradient, in ten or more batches: one whose sample weights are
    all 0 has none either. 0 in a single probe is not enough below a kernel of 0, or inside a residual branch that a
    gain of 0 closes, where the first step mends it. Weights that are not trainable are frozen on purpose.
    """
    model = evidence.model
    if model is None:
        return
    kernels = [reading.weight for reading in evidence.first.values()]
    has_flat_kernel = any(weight is not None and is_constant(weight) for weight in kernels)
    flowing = [readings for readings in evidence.readings if any(map(_learns, readings.values()))]
    least = LASTING_REPORTS if flowing else SILENT_REPORTS
    for layer, reading in evidence.last.items():
        if not reading.has_kernel or reading.weight is None or layer not in evidence.trainable:
            continue
        gradients = [readings[layer].weight_gradient for readings in flowing or evidence.readings if layer in readings]
        missing = all(gradient is None for gradient in gradients)
        zero = all(gradient is not None and is_zero(gradient) for gradient in gradients)
        enough = len(gradients) >= (least if evidence.is_run else 1)
        excused = len(evidence.reports) == 1 and (
            has_flat_kernel or (zero and layer in evidence.scale_free and _has_zero_gain(evidence))
        )
        if missing and any(other.weight_gradient for other in evidence.last.values()):
            reason, confidence = "none", 1.0
        elif zero and enough and not excused:
            reason, confidence = "0", confidence_after(len(gradients))
        else:
            continue
        yield Finding(
            "frozen_weights",
            layer,
            evidence.reports[0].step,
            "warning",
            {"gradient": reason, "reports": len(evidence.reports), "healthy": "not 0"},
            f"{BY_HAND}connect it. Nothing between it and the loss may be stop_gradient, an integer or a comparison, "
            "and its output has to be used. If it is meant, freeze it: "
            f"`{layer_code(model.model, layer)}.trainable = False`.",
            confidence,
            message=f"The kernel of {layer} trains, but its gradient is {reason}: the loss does not depend on it.",
        )


def _scaling_optimizer(evidence: Evidence) -> str:
    scales = evidence.model is not None and evidence.model.scales_loss
    adam = "keras.optimizers.Adam()"
    return put_optimizer(f"keras.optimizers.LossScaleOptimizer({adam})" if scales else adam)


def _has_zero_gain(evidence: Evidence) -> bool:
    """Whether a weight other than a bias is 0 throughout, as gains that close residual branches at first."""
    weights = [] if evidence.model is None else evidence.model.model.trainable_weights
    return any(not re.search("bias|beta", weight.name) and not to_numpy(weight).any() for weight in weights)


def _learns(reading: LayerReading) -> bool:
    gradient = reading.weight_gradient
    return gradient is not None and not is_zero(gradient)
