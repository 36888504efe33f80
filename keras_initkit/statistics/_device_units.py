"""What a measured step reads of every element: whether it is finite, and which units are dead or saturated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.statistics._device import as_float, joined, on_every_device
from keras_initkit.statistics._moments import widest_float
from keras_initkit.statistics._sampling import spread
from keras_initkit.statistics._tap import Tap
from keras_initkit.statistics._unit_activity import SATURATION_DEPTH, SATURATION_SHARE

Limits = tuple[float, float]
TOGETHER = 2**23  # elements that are kept until they have been checked: 32 MiB
SOME_BATCH = 64  # taken for a size that is not known while the step is traced
UNITS = ("saturated", "dead_units", "saturated_units")


def of_units(
    tensors: Mapping[Tap, Sequence[Any]],
    limits: Mapping[str, Limits],
    sample_size: int | None,
    means: Any,
    over_replicas: Callable[[Any], Any],
) -> tuple[Any, list[Any]]:
    """Number of elements that are not finite, and a vector for each of `UNITS`; NaN where a tap has no such thing.

    One pass over all elements: their norm, or the sum of each unit's column. It is not finite if an element is not,
    and a unit that sums to something is not dead. The elements themselves are looked at where the sums leave a doubt.

    Args:
        tensors: what each tap saw.
        limits: see `reduce_taps`.
        sample_size: rows of saturated units are counted on about so many elements.
        means: of all elements of every tap, where they are known.
        over_replicas: see `reduce_taps`.
    """
    from keras_initkit.statistics._ops import take_rows  # that package needs this module

    taps = list(tensors)
    rows = {tap: _rows(seen) for tap, seen in tensors.items() if tap.kind == "output" and _has_units(seen)}
    groups = _groups(tensors)
    counted = [_counted({tap: tensors[tap] for tap in group}, rows, limits, means) for group in groups]
    places = {tap: place for place, tap in enumerate(tap for group in groups for tap in group)}
    nonfinite = take_rows(joined([of_group for of_group, _ in counted]), np.array([places[tap] for tap in taps]))
    vectors = [np.full(len(taps), math.nan) for _ in UNITS]
    if not rows:
        return nonfinite, [keras.ops.convert_to_tensor(vector, widest_float()) for vector in vectors]
    alive = joined([of_group for _, of_group in counted if of_group is not None])
    return nonfinite, _shares(taps, rows, limits, sample_size, alive, over_replicas)


def _groups(tensors: Mapping[Tap, Sequence[Any]]) -> list[list[Tap]]:
    """Taps that are checked together: of about one time in the step, and no more than fit in some memory.

    What is checked is kept until the sums of all its group are known. So that a large network's signals are not all
    kept to the end of the step, there are several groups, and because each takes time to trace and to run, not more.
    """
    groups: list[list[Tap]] = [[]]
    size = 0
    for tap in sorted(tensors, key=lambda tap: (_is_weight(tap), tap.kind)):  # weights are there all the time
        elements = 0 if _is_weight(tap) else sum(map(_elements, tensors[tap]))
        if groups[-1] and size + elements > TOGETHER:
            groups.append([])
            size = 0
        groups[-1].append(tap)
        size += elements
    return groups


def _is_weight(tap: Tap) -> bool:
    return tap.kind in ("weight", "weight_update")


def _elements(x: Any) -> int:
    return math.prod(SOME_BATCH if n is None else n for n in x.shape)


def _counted(
    tensors: Mapping[Tap, Sequence[Any]], all_rows: Mapping[Tap, list[Any]], limits: Mapping[str, Limits], means: Any
) -> tuple[Any, Any]:
    """For each tap the number of elements that are not finite; for each unit of each output how often it is not 0."""
    from keras_initkit.statistics._ops import norm  # that package needs this module

    ops = keras.ops
    taps, rows = list(tensors), {tap: all_rows[tap] for tap in tensors if tap in all_rows}
    sums = {tap: _added([_column_sums(each) for each in several]) for tap, several in rows.items()}
    others = [tap for tap in taps if tensors[tap] and tap not in rows and means is None]
    # A weight that is finite after the step was so before.
    others = [t for t in others if t.kind != "weight" or not tensors.get(t._replace(kind="weight_update"))]
    checked = [norm(as_float(x)) for tap in others for x in tensors[tap]]
    columns = joined(list(sums.values())) if sums else None
    finite = ops.isfinite(ops.sum(ops.stack(checked)) if checked else 0.0)
    if means is not None:
        finite = ops.all(ops.isfinite(means))
    if columns is not None:
        # Where an activation goes to 0 below, a sum of 0 is no chance: nothing there can cancel to the last bit.
        certain = np.concatenate([np.full(s.shape[0], limits.get(t.layer, (-1, 0))[0] >= 0) for t, s in sums.items()])
        finite = ops.logical_and(finite, ops.isfinite(ops.sum(columns)))
        finite = ops.logical_and(finite, ops.all(ops.logical_or(ops.not_equal(columns, 0), certain)))

    def from_sums() -> tuple[Any, ...]:
        alive = () if columns is None else (ops.cast(ops.not_equal(columns, 0), "float32"),)
        return (ops.zeros((len(taps),), "float32"), *alive)

    def from_elements() -> tuple[Any, ...]:
        number = [_added([_nonfinite(x) for x in tensors[tap]]) if tensors[tap] else ops.zeros(()) for tap in taps]
        alive = [_added([ops.cast(ops.any(ops.not_equal(x, 0), axis=0), "float32") for x in rows[t]]) for t in rows]
        return (ops.stack(number), *([joined(alive)] if alive else []))

    nonfinite, *alive = ops.cond(finite, from_sums, from_elements)
    return nonfinite, alive[0] if alive else None


def _shares(
    taps: list[Tap],
    rows: Mapping[Tap, list[Any]],
    limits: Mapping[str, Limits],
    sample_size: int | None,
    alive: Any,
    over_replicas: Callable[[Any], Any],
) -> list[Any]:
    """The shares of `UNITS`, in that order, from what is counted for each unit, over all replicas."""
    ops = keras.ops
    widths = {tap: rows[tap][0].shape[-1] for tap in rows}
    bounded = [tap for tap in rows if np.isfinite(limits.get(tap.layer, (-math.inf, math.inf))).all()]
    counted = [part for tap in bounded for part in _saturation(rows[tap], limits[tap.layer], sample_size)]
    counts = over_replicas(joined([alive, *counted]))
    owner = np.repeat(np.flatnonzero([tap in widths for tap in taps]), list(widths.values())).astype("int32")
    dead = on_every_device(ops.cast(ops.equal(counts[: len(owner)], 0), "float32"))
    width = np.array([widths.get(tap, math.nan) for tap in taps], "float32")
    dead_units = ops.segment_sum(dead, ops.convert_to_tensor(owner), num_segments=len(taps)) / width
    nothing = ops.convert_to_tensor(math.nan, "float32")
    saturated, saturated_units, start = dict.fromkeys(taps, nothing), dict.fromkeys(taps, nothing), len(owner)
    for tap in bounded:
        share = counts[start : start + widths[tap]] / counts[start + widths[tap]]
        saturated[tap] = ops.mean(share)
        saturated_units[tap] = ops.mean(ops.cast(share >= SATURATION_SHARE, "float32"))
        start += widths[tap] + 1
    return [ops.stack(list(saturated.values())), dead_units, ops.stack(list(saturated_units.values()))]


def _saturation(rows: list[Any], limits: Limits, sample_size: int | None) -> list[Any]:
    """How often each unit is saturated, and out of how many examples and positions."""
    ops = keras.ops
    matrix = joined(rows)
    if sample_size is not None:
        matrix = spread(matrix, max(64, sample_size // matrix.shape[-1]))
    middle, half = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
    at_an_end = ops.cast(ops.abs(matrix - middle) > SATURATION_DEPTH * half, "float32")
    return [ops.sum(at_an_end, axis=0), ops.reshape(ops.cast(ops.shape(matrix)[0], "float32"), (1,))]


def _has_units(seen: Sequence[Any]) -> bool:
    return bool(seen) and all(len(x.shape) > 1 and x.shape[-1] for x in seen) and len({x.shape[-1] for x in seen}) == 1


def _rows(seen: Sequence[Any]) -> list[Any]:
    return [keras.ops.reshape(as_float(x), (-1, x.shape[-1])) for x in seen]


def _column_sums(matrix: Any) -> Any:
    """As a product, which takes half the time of a sum over the first axis."""
    ones = keras.ops.ones((1, keras.ops.shape(matrix)[0]), matrix.dtype)
    return keras.ops.squeeze(keras.ops.matmul(ones, matrix), 0)


def _added(several: list[Any]) -> Any:
    total = several[0]
    for each in several[1:]:
        total = total + each
    return total


def _nonfinite(x: Any) -> Any:
    return keras.ops.sum(keras.ops.cast(keras.ops.logical_not(keras.ops.isfinite(as_float(x))), "float32"))
