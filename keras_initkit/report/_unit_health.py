"""Layers that have lost their units: dead or saturated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keras_initkit.report._data import ReportData
from keras_initkit.report._flow import LayerFlow
from keras_initkit.report._guessed_flow import guess_flow
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._moments import Moments
from keras_initkit.theory._thresholds import (
    ASSUMED_UNITS,
    DEAD_UNITS,
    DEAD_UNITS_P_VALUE,
    EQUAL_TOLERANCE,
    FAINT_MEAN_SQUARE,
    SATURATED_SLOPE,
    SATURATED_UNITS,
    SMALLEST_NORMAL,
)


def dead_p_value(fraction: float, units: int) -> float:
    """Returns how probable so many dead units are, if each is dead with probability 1/2."""
    from scipy import stats

    return float(stats.binom.sf(round(fraction * units) - 1, units, DEAD_UNITS))


def are_dead(fraction: float, units: int) -> bool:
    """Whether a layer has more dead units than chance makes; all of them are always more."""
    if fraction <= DEAD_UNITS:
        return False
    return fraction > 1 - EQUAL_TOLERANCE or dead_p_value(fraction, units) < DEAD_UNITS_P_VALUE


def mean_slope(moments: Moments, limits: tuple[float, float]) -> float:
    """Returns the mean slope of tanh, a sigmoid or the like, relative to its largest, from its outputs' moments."""
    low, high = limits
    return 4 * ((high - moments.mean) * (moments.mean - low) - moments.variance) / (high - low) ** 2


def is_relu_like(output: Moments) -> bool:
    """Whether the lower end is 0 and the upper one beyond 1, as in relu6: units at 0 are dead instead."""
    return abs(output.minimum) < SMALLEST_NORMAL and output.maximum > 1.0


def dead_layers(report: ReportData) -> dict[str, bool]:
    """Returns whether too many units of a layer are dead, for the layers whose units can die."""
    outputs, found = _outputs(report), {}
    weights = {row.tap.layer: row.moments for row in report.rows if row.tap.kind == "weight" and _is_matrix(row)}
    is_behind_faint = False  # products with so faint a signal are zeros in float32
    for flow in _flows(report):
        rows = outputs.get(flow.layer, [])
        fractions = [row.dead_units for row in rows if row.dead_units is not None]
        weight = weights.get(flow.layer)
        learns = weight is not None and flow.alive_at_zero and weight.minimum == weight.maximum == 0
        broken = weight is not None and weight.nonfinite
        if flow.can_die and fractions and not (is_behind_faint or learns or broken):
            found[flow.layer] = are_dead(min(fractions), _units(flow, rows))
        output = Moments.merged(row.moments for row in rows)
        is_behind_faint |= bool(output.count) and 0 < output.mean_square < FAINT_MEAN_SQUARE
    return found


def saturated_layers(report: ReportData) -> dict[str, bool]:
    """Returns whether too many units of a layer are saturated, for hidden layers with a bounded activation.

    Before training also whether the mean slope of the activation is too small. Of gates half may be: the others learn
    around them.
    """
    outputs, found = _outputs(report), dict[str, bool]()
    for flow in _flows(report):
        rows = outputs.get(flow.layer, [])
        fractions = [row.saturated_units for row in rows if row.saturated_units is not None]
        output = Moments.merged(row.moments for row in rows)
        if not flow.can_saturate or not output.count or output.nonfinite or is_relu_like(output):
            continue
        if fractions:
            found[flow.layer] = min(fractions) > SATURATED_UNITS
        if flow.limits and report.step == 0 and any(row.saturated is not None for row in rows):
            flat = mean_slope(output, flow.limits) < SATURATED_SLOPE
            found[flow.layer] = found.get(flow.layer, False) or flat
    gates = [flow.layer for flow in _flows(report) if flow.is_gate and flow.layer in found]
    return found | dict.fromkeys(gates if is_minority([found[gate] for gate in gates]) else (), False)


def is_minority(are_lost: Sequence[bool]) -> bool:
    """Whether no more than half of the gates are lost, around which the others learn (measured)."""
    return 2 * sum(are_lost) <= len(are_lost)


def _flows(report: ReportData) -> tuple[LayerFlow, ...]:
    return report.flow or guess_flow(report)


def _outputs(report: ReportData) -> Mapping[str, list[TensorStats]]:
    found: dict[str, list[TensorStats]] = {}
    for row in report.rows:
        if row.tap.kind == "output":
            found.setdefault(row.tap.layer, []).append(row)
    return found


def _is_matrix(row: TensorStats) -> bool:
    return row.shape is None or len(row.shape) > 1


def _units(flow: LayerFlow, rows: list[TensorStats]) -> int:
    return flow.units or next((row.shape[-1] for row in rows if row.shape), ASSUMED_UNITS)
