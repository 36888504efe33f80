"""Rules for units that carry no signal: dead or saturated."""

from __future__ import annotations

from collections.abc import Iterator

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_after, confidence_beyond
from keras_initkit.diagnosis._readings import LayerReading, is_zero
from keras_initkit.diagnosis._rule_registry import SCALE_CAUSES, register_rule
from keras_initkit.diagnosis.rules._advice import lower_rate
from keras_initkit.report._unit_health import are_dead, dead_p_value, is_minority, is_relu_like, mean_slope
from keras_initkit.structure._layer_kinds import is_embedding, is_recurrent, passes_through
from keras_initkit.theory._thresholds import (
    ASSUMED_UNITS,
    DEAD_UNITS,
    EQUAL_TOLERANCE,
    FAINT_MEAN_SQUARE,
    GRAVE_SLOPE,
    GRAVE_UNITS,
    LASTING_REPORTS,
    SATURATED_SLOPE,
    SATURATED_UNITS,
)

_REPAIR = "`keras_initkit.diagnose(model, x).apply(model, x)`"


@register_rule("dead_units", causes=(*SCALE_CAUSES, "symmetric_units"))
def find_dead_units(evidence: Evidence) -> Iterator[Finding]:
    """Finds units that are zero for every example of the last three measured batches together.

    More than half of a layer's units are dead, by a binomial test at 0.1 %. Half, because a unit whose weights are
    drawn around 0 is as likely negative as positive: even if all examples look alike to it, it is dead with
    probability 1/2 and no more. It is an error if at most one unit in 20 is left. Not judged behind a signal so faint
    that its products are zeros in float32, which is a `vanishing_activation`. A training step reads what comes before a
    separate `ReLU` layer, and counts the units of which that makes nothing but zeros.
    """
    faint = _layers_behind_faint_signal(evidence)
    for layer, fraction in evidence.lasting("dead_units").items():
        reading = evidence.last.get(layer) or evidence.first[layer]
        if fraction <= DEAD_UNITS or layer in faint or _is_linear(evidence, reading):
            continue
        if reading.weight is not None and reading.weight.nonfinite:  # relu of NaN is 0, and `nonfinite` says so
            continue
        units = _count_units(evidence, reading)
        if not are_dead(fraction, units):
            continue
        p_value = dead_p_value(fraction, units)
        since = _first_step(evidence, layer, "dead_units", fraction)
        slower = f" {lower_rate(evidence)}." if since > 0 else ""
        yield Finding(
            "dead_units",
            layer,
            since,
            "error" if fraction >= GRAVE_UNITS else "warning",
            {"dead_units": fraction, "units": units, "p_value": p_value, "healthy": "half or fewer"},
            f"Draw its kernel again, with bias 0: {_REPAIR}.{slower}",
            min(1 - p_value, confidence_after(evidence.count_examples(layer))),
            message=f"{100 * fraction:.3g}% of the {units} units of {layer} are 0 for every example; up to half is "
            "normal.",
        )


@register_rule("saturated_units", causes=(*SCALE_CAUSES, "exploding_activation", "symmetric_units"))
def find_saturated_units(evidence: Evidence) -> Iterator[Finding]:
    """Finds hidden layers at the ends of their activation's range, in the last three batches.

    More than half of a layer's units are saturated (`theory/_thresholds.py` has when one is), whatever the scale: a
    unit with pre-activation N(0, s^2) over the examples reaches 95 % of examples beyond 99 % of tanh's range only if
    s > 40, or if its mean lies far out. Or, from the first report on, the mean slope of the activation is below 1/3 of
    its largest, so that each such layer takes two thirds of the gradient away: for tanh 1 - E[f^2], for a sigmoid
    4 E[f (1 - f)], at N(0, s^2) about 0.8 / s and 1.6 / s. An error below a tenth. Output layers are left out, for a
    classifier that is sure saturates, and so are recurrent layers and, unless more than half of them are saturated,
    gates; without the model, sigmoids in a network of other activations, which may be gates.
    """
    units, slopes = evidence.lasting("saturated_units"), _lasting_slopes(evidence)
    gates = [layer for layer in units if evidence.model is not None and evidence.model.is_gate(layer)]
    passed = gates if is_minority([units[gate] > SATURATED_UNITS for gate in gates]) else []
    for layer in [name for name in evidence.last if (name in units or name in slopes) and name not in passed]:
        reading, fraction, slope = evidence.last[layer], units.get(layer, 0.0), slopes.get(layer, 1.0)
        if layer in evidence.outputs or reading.output is None or is_relu_like(reading.output):
            continue
        if fraction > SATURATED_UNITS:
            said = (
                f"{100 * fraction:.3g}% of the units of {layer} are at an end of their activation's range for nearly "
            )
            said += "every example; fewer than 10% is healthy at initialization."
            confidence = confidence_beyond(fraction, SATURATED_UNITS)
            if fraction == 1:
                confidence = confidence_after(evidence.count_examples(layer))
            step = _first_step(evidence, layer, "saturated_units", fraction)
        elif slope < SATURATED_SLOPE:
            said = (
                f"The activation of {layer} is nearly flat where it works: its mean slope is {100 * slope:.2g}% of its "
            )
            said += "largest, and the gradient that passes shrinks as much; healthy layers keep more than half."
            confidence, step = confidence_beyond(slope, SATURATED_SLOPE), evidence.reports[0].step
        else:
            continue
        numbers = {"saturated_units": fraction} if layer in units else {}
        numbers |= {"mean_slope": slope} if layer in slopes else {}
        yield Finding(
            "saturated_units",
            layer,
            step,
            "error" if fraction >= GRAVE_UNITS or slope < GRAVE_SLOPE else "warning",
            {**numbers, "healthy": "fewer than 0.1 at initialization, slope above 0.5"},
            f"Scale the kernel to what the layer reads, with bias 0: {_REPAIR}. If it saturates again, put a "
            "normalization before it.",
            confidence,
            message=said,
        )


def _lasting_slopes(evidence: Evidence) -> dict[str, float]:
    """Returns the mean slope of hidden activations relative to their largest, where it is as low in every report."""
    found: dict[str, float] = {}
    judged = [evidence.first, *evidence.readings[-LASTING_REPORTS:]] if evidence.is_initial else []
    for readings in judged:
        for layer, reading in readings.items():
            limits = _find_limits(evidence, reading)
            if limits is not None and reading.output is not None and not reading.output.nonfinite:
                found[layer] = max(mean_slope(reading.output, limits), found.get(layer, 0.0))
    return found


def _find_limits(evidence: Evidence, reading: LayerReading) -> tuple[float, float] | None:
    """Returns the range of a layer's activation where its mean slope counts; `None` elsewhere."""
    output = reading.output
    if output is None or not reading.statistics("saturated") or is_recurrent(reading.layer_type):
        return None
    if evidence.model is not None:
        if reading.layer in evidence.model.in_branches or evidence.model.is_gate(reading.layer):
            return None
        return evidence.model.limits(reading.layer)
    limits = (-1.0 if output.minimum < 0 else 0.0), 1.0
    if output.maximum > 1 + EQUAL_TOLERANCE or output.minimum < -1 - EQUAL_TOLERANCE:
        return None
    kernels = [each for each in evidence.last.values() if each.has_kernel and each.layer not in evidence.outputs]
    bounded = sum(bool(each.statistics("saturated")) for each in kernels)
    return limits if limits[0] < 0 or 2 * bounded > len(kernels) else None


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
        rectified = evidence.is_run and reading.layer in evidence.model.rectified
        zeros = (
            reading.weight is not None and is_zero(reading.weight) and evidence.model.has_slope_at_zero(reading.layer)
        )
        return zeros or not (rectified or evidence.model.is_nonlinear(reading.layer))
    kind = reading.layer_type
    zeros = any(is_zero(row.moments) for row in reading.kernel_rows)
    return zeros or is_embedding(kind) or kind == "Add" or passes_through(kind)


def _first_step(evidence: Evidence, layer: str, name: str, fraction: float) -> int:
    """The first step at which the fraction was no smaller than the one that lasts."""
    for report, readings in zip(evidence.reports, evidence.readings, strict=True):
        if layer in readings and (readings[layer].unit_fraction(name) or 0.0) >= fraction:
            return report.step
    return evidence.reports[-1].step
