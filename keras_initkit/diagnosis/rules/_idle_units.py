"""Rules for units that carry no signal: dead or saturated."""

from __future__ import annotations

from collections.abc import Iterator

from scipy import stats

from keras_initkit.diagnosis._evidence import Evidence, LayerReading, is_zero
from keras_initkit.diagnosis._finding import Finding, confidence_beyond
from keras_initkit.diagnosis._rule_registry import SCALE_CAUSES, register_rule
from keras_initkit.structure._layer_kinds import is_embedding, passes_through
from keras_initkit.theory._thresholds import (
    ASSUMED_UNITS,
    DEAD_UNITS,
    DEAD_UNITS_P_VALUE,
    EQUAL_TOLERANCE,
    FAINT_MEAN_SQUARE,
    GRAVE_UNITS,
    SATURATED_UNITS,
    SMALLEST_NORMAL,
)


@register_rule("dead_units", causes=(*SCALE_CAUSES, "symmetric_units"))
def find_dead_units(evidence: Evidence) -> Iterator[Finding]:
    """Finds units that are zero for every example of the last three measured batches together.

    More than half of a layer's units are dead, by a binomial test at 0.1 %. Half, because a unit whose weights are
    drawn around 0 is as likely negative as positive: even if all examples look alike to it, it is dead with
    probability 1/2 and no more. It is an error if at most one unit in 20 is left. Not judged behind a signal so faint
    that its products are zeros in float32, which is a `vanishing_activation`.
    """
    faint = _layers_behind_faint_signal(evidence)
    for layer, fraction in evidence.lasting("dead_units").items():
        reading = evidence.last.get(layer) or evidence.first[layer]
        if fraction <= DEAD_UNITS or layer in faint or _is_linear(evidence, reading):
            continue
        if reading.weight is not None and reading.weight.nonfinite:  # relu of NaN is 0, and `nonfinite` says so
            continue
        units = _count_units(evidence, reading)
        p_value = float(stats.binom.sf(round(fraction * units) - 1, units, DEAD_UNITS))
        all_dead = fraction > 1 - EQUAL_TOLERANCE
        if not all_dead and p_value >= DEAD_UNITS_P_VALUE:
            continue
        yield Finding(
            "dead_units",
            layer,
            _first_step(evidence, layer, "dead_units", fraction),
            "error" if fraction >= GRAVE_UNITS else "warning",
            {"dead_units": fraction, "units": units, "p_value": p_value, "healthy": "half or fewer"},
            "Re-initialize the layer with bias 0, "
            f'keras_initkit.initialize(model, "reset", layers="{layer}"), and lower the learning rate; '
            'or use an activation that is never flat: activation="leaky_relu".',
            1.0 if all_dead else 1 - p_value,
            message=f"{100 * fraction:.3g}% of the {units} units of {layer} are 0 for every example; up to half is "
            "normal.",
        )


@register_rule("saturated_units", causes=(*SCALE_CAUSES, "exploding_activation"))
def find_saturated_units(evidence: Evidence) -> Iterator[Finding]:
    """Finds hidden units at an end of their activation's range for nearly every example, in the last three batches.

    More than half of a hidden layer's units are saturated (`theory/_thresholds.py` has when one is). A unit with
    pre-activation N(0, s^2) over the examples reaches 95 % of examples beyond 99 % of tanh's range only if s > 40, or
    if its mean lies far out: no healthy scale comes near. Output layers are left out: a classifier that is sure
    saturates.
    """
    for layer, fraction in evidence.lasting("saturated_units").items():
        reading = evidence.last.get(layer) or evidence.first[layer]
        if layer in evidence.outputs or fraction <= SATURATED_UNITS or _is_relu_like(reading):
            continue
        yield Finding(
            "saturated_units",
            layer,
            _first_step(evidence, layer, "saturated_units", fraction),
            "error" if fraction >= GRAVE_UNITS else "warning",
            {"saturated_units": fraction, "healthy": "fewer than 0.1 at initialization"},
            "Scale what the layer reads to unit variance: "
            f'keras_initkit.initialize(model, "lsuv", x, layers="{layer}"), and '
            "put keras.layers.LayerNormalization() before it if it saturates again.",
            confidence_beyond(fraction, SATURATED_UNITS) if fraction < 1 else 1.0,
            message=f"{100 * fraction:.3g}% of the units of {layer} are at an end of their activation's range for "
            "nearly every example; fewer than 10% is healthy at initialization.",
        )


def _layers_behind_faint_signal(evidence: Evidence) -> set[str]:
    """The layers behind the first one whose output is next to nothing, but not 0."""
    for place, reading in enumerate(evidence.last.values()):
        if reading.output is not None and 0 < reading.output.mean_square < FAINT_MEAN_SQUARE:
            return set(list(evidence.last)[place + 1 :])
    return set()


def _count_units(evidence: Evidence, reading: LayerReading) -> int:
    if reading.units:
        return reading.units
    contexts = [] if evidence.model is None else evidence.model.kernels
    return ([each.units for each in contexts if each.path == reading.layer] or [ASSUMED_UNITS])[-1]


def _is_linear(evidence: Evidence, reading: LayerReading) -> bool:
    """Whether zeros are no death: what is linear is 0 where its kernel or its input is, and lets gradients pass."""
    if evidence.model is not None:
        return not evidence.model.is_nonlinear(reading.layer)
    kernels = [row for row in reading.rows.get("weight", []) if row.shape is None or len(row.shape) > 1]
    kind = reading.layer_type
    return any(is_zero(row.moments) for row in kernels) or is_embedding(kind) or kind == "Add" or passes_through(kind)


def _is_relu_like(reading: LayerReading) -> bool:
    """Whether the lower end is 0 and the upper one beyond 1, as in relu6: units at 0 are dead instead."""
    output = reading.output
    return output is not None and abs(output.minimum) < SMALLEST_NORMAL and output.maximum > 1.0


def _first_step(evidence: Evidence, layer: str, name: str, fraction: float) -> int:
    """The first step at which the fraction was no smaller than the one that lasts."""
    for report, readings in zip(evidence.reports, evidence.readings, strict=True):
        if layer in readings and (readings[layer].unit_fraction(name) or 0.0) >= fraction:
            return report.step
    return evidence.reports[-1].step
