"""What is read of every element on the device: whether it is finite, and which units are dead or saturated."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.statistics._ops import (
    as_float,
    concatenate,
    norm,
    replicated,
    reshape,
    segment_sum,
    take_rows,
    widest_float,
)
from keras_initkit.statistics._sampling import spread_rows
from keras_initkit.statistics._tap import Tap
from keras_initkit.theory._thresholds import SATURATED_FRACTION, SATURATION_DEPTH

Limits = tuple[float, float]
TOGETHER = 2**23  # elements that are kept until they are checked: 32 MiB
SOME_BATCH = 64  # stands in for a size that is unknown while the step is traced
UNITS = ("saturated", "dead_units", "saturated_units")


def measure_activity(
    tensors: Mapping[Tap, Sequence[Any]],
    limits: Mapping[str, Limits],
    sample_size: int | None,
    means: Any,
    over_replicas: Callable[[Any], Any],
    rectified: Collection[str] = (),
) -> tuple[Any, list[Any]]:
    """Returns the number of elements that are not finite, by tap, and a vector by tap for each of `UNITS` (or NaN).

    One pass over all elements takes their norm, or the sum of each unit's column. It is not finite if an element is
    not, and a unit with a sum other than 0 is not dead. The elements themselves are looked at where the sums leave a
    doubt.

    Args:
        tensors: Tensors of each tap, units last.
        limits: Range of each layer's activation, by the layer's path.
        sample_size: Saturated units are counted on about so many elements; `None` counts on all.
        means: Means of all elements of each tap, where they are known.
        over_replicas: Sums a vector over the replicas that share the batch.
        rectified: Paths of layers whose output goes through a separate `ReLU`: a unit is dead if that makes it 0.
    """
    taps = list(tensors)
    rows = {tap: _to_rows(seen) for tap, seen in tensors.items() if tap.kind == "output" and _has_units(seen)}
    groups = _group_taps(tensors)
    counted = [_count({tap: tensors[tap] for tap in group}, rows, limits, means, rectified) for group in groups]
    places = {tap: place for place, tap in enumerate(tap for group in groups for tap in group)}
    nonfinite = take_rows(concatenate([of_group for of_group, _ in counted]), np.array([places[tap] for tap in taps]))
    vectors = [np.full(len(taps), math.nan) for _ in UNITS]
    if not rows:
        return nonfinite, [keras.ops.convert_to_tensor(vector, widest_float()) for vector in vectors]
    alive = concatenate([of_group for _, of_group in counted if of_group is not None])
    return nonfinite, _fractions(taps, rows, limits, sample_size, alive, over_replicas)


def _group_taps(tensors: Mapping[Tap, Sequence[Any]]) -> list[list[Tap]]:
    """Groups taps that are checked together: those of about one time in the step, within a limit of memory.

    Tensors are kept until the sums of all their group are known. With one group, a large network's signals would all
    be kept to the end of the step; each further group takes time to trace and to run.
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


def _count(
    tensors: Mapping[Tap, Sequence[Any]],
    all_rows: Mapping[Tap, list[Any]],
    limits: Mapping[str, Limits],
    means: Any,
    rectified: Collection[str],
) -> tuple[Any, Any]:
    """Counts elements that are not finite, by tap; and for each unit of the outputs, how often it is alive."""
    if keras.backend.backend() == "jax":
        return _count_at_once(tensors, all_rows, rectified)
    ops = keras.ops
    taps, rows = list(tensors), {tap: all_rows[tap] for tap in tensors if tap in all_rows}
    sums = {tap: _add([_column_sums(each) for each in several]) for tap, several in rows.items()}
    # Not `relu`, which a framework could take for the model's own operation.
    positive = {t: _add([_column_sums(ops.maximum(x, 0.0)) for x in rows[t]]) for t in rows if t.layer in rectified}
    others = [tap for tap in taps if tensors[tap] and tap not in rows and means is None]
    # A weight that is finite after the step was so before.
    others = [t for t in others if t.kind != "weight" or not tensors.get(t._replace(kind="weight_update"))]
    checked = [_sums(as_float(x)) for tap in others for x in tensors[tap]]
    columns = concatenate(list(sums.values())) if sums else None
    finite = ops.isfinite(ops.sum(concatenate(checked)) if checked else 0.0)
    if means is not None:
        finite = ops.all(ops.isfinite(means))
    if columns is not None:
        # Where an activation goes to 0 below, a sum of 0 is no chance: nothing there can cancel to the last bit.
        sure = {tap: tap in positive or limits.get(tap.layer, (-1, 0))[0] >= 0 for tap in sums}
        certain = np.concatenate([np.full(each.shape[0], sure[tap]) for tap, each in sums.items()])
        finite = ops.logical_and(finite, ops.isfinite(ops.sum(columns)))
        finite = ops.logical_and(finite, ops.all(ops.logical_or(ops.not_equal(columns, 0), certain)))

    def from_sums() -> tuple[Any, ...]:
        alive = [ops.not_equal(concatenate([positive.get(tap, sums[tap]) for tap in sums]), 0)] if sums else []
        return (ops.zeros((len(taps),), "float32"), *(ops.cast(each, "float32") for each in alive))

    def from_elements() -> tuple[Any, ...]:
        number = [_add([_count_nonfinite(x) for x in tensors[tap]]) if tensors[tap] else ops.zeros(()) for tap in taps]
        above = {tap: ops.greater if tap in positive else ops.not_equal for tap in rows}
        alive = [_add([ops.cast(ops.any(above[t](x, 0), axis=0), "float32") for x in rows[t]]) for t in rows]
        return (ops.stack(number), *([concatenate(alive)] if alive else []))

    nonfinite, *alive = ops.cond(finite, from_sums, from_elements)
    return nonfinite, alive[0] if alive else None


def _count_at_once(
    tensors: Mapping[Tap, Sequence[Any]], all_rows: Mapping[Tap, list[Any]], rectified: Collection[str]
) -> tuple[Any, Any]:
    """As `_count`, each tensor by itself: a branch that takes several keeps them all, and copies those donated."""
    ops = keras.ops

    def count(x: Any) -> Any:
        x = as_float(x)
        return ops.cond(ops.isfinite(ops.sum(x)), lambda: ops.zeros((), "float32"), lambda: _count_nonfinite(x))

    number = [_add([count(x) for x in seen]) if seen else ops.zeros((), "float32") for seen in tensors.values()]
    alive = []
    for tap in (tap for tap in tensors if tap in all_rows):
        # Not `any`, which takes several times as long. A NaN is alive, unless a `ReLU` reads it.
        size = [ops.where(x > 0, x, 0.0) if tap.layer in rectified else ops.abs(x) for x in all_rows[tap]]
        alive.append(_add([ops.cast(ops.not_equal(ops.max(x, axis=0, initial=0.0), 0), "float32") for x in size]))
    return ops.stack(number), concatenate(alive) if alive else None


def _fractions(
    taps: list[Tap],
    rows: Mapping[Tap, list[Any]],
    limits: Mapping[str, Limits],
    sample_size: int | None,
    alive: Any,
    over_replicas: Callable[[Any], Any],
) -> list[Any]:
    """Returns the fractions of `UNITS`, in that order, over all replicas; `alive` counts for each unit."""
    ops = keras.ops
    widths = {tap: rows[tap][0].shape[-1] for tap in rows}
    bounded = [tap for tap in rows if np.isfinite(limits.get(tap.layer, (-math.inf, math.inf))).all()]
    counted = [part for tap in bounded for part in _count_saturated(rows[tap], limits[tap.layer], sample_size)]
    counts = over_replicas(concatenate([alive, *counted]))
    owner = np.repeat(np.flatnonzero([tap in widths for tap in taps]), list(widths.values())).astype("int32")
    dead = replicated(ops.cast(ops.equal(counts[: len(owner)], 0), "float32"))
    width = np.array([widths.get(tap, math.nan) for tap in taps], "float32")
    dead_units = segment_sum(dead, ops.convert_to_tensor(owner), len(taps)) / ops.convert_to_tensor(width)
    nothing = ops.convert_to_tensor(math.nan, "float32")
    saturated, saturated_units, start = dict.fromkeys(taps, nothing), dict.fromkeys(taps, nothing), len(owner)
    for tap in bounded:
        fraction = counts[start : start + widths[tap]] / counts[start + widths[tap]]
        saturated[tap] = ops.mean(fraction)
        saturated_units[tap] = ops.mean(ops.cast(fraction >= SATURATED_FRACTION, "float32"))
        start += widths[tap] + 1
    return [ops.stack(list(saturated.values())), dead_units, ops.stack(list(saturated_units.values()))]


def _count_saturated(rows: list[Any], limits: Limits, sample_size: int | None) -> list[Any]:
    """Counts how often each unit is saturated, and the examples and positions that were looked at."""
    ops = keras.ops
    matrix = concatenate(rows)
    if sample_size is not None:
        matrix = spread_rows(matrix, max(64, sample_size // matrix.shape[-1]))
    middle, half = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
    at_an_end = ops.cast(ops.abs(matrix - middle) > SATURATION_DEPTH * half, "float32")
    return [ops.sum(at_an_end, axis=0), ops.reshape(ops.cast(ops.shape(matrix)[0], "float32"), (1,))]


def _has_units(seen: Sequence[Any]) -> bool:
    return bool(seen) and all(len(x.shape) > 1 and x.shape[-1] for x in seen) and len({x.shape[-1] for x in seen}) == 1


def _to_rows(seen: Sequence[Any]) -> list[Any]:
    return [reshape(as_float(x), (-1, x.shape[-1])) for x in seen]


def _sums(x: Any) -> Any:
    """Returns a few sums that are finite if all elements are, unless they are huge, and are not if one is not.

    Those of columns take TensorFlow a third of the time of a norm, which is one number; the others are fast at both.
    """
    if keras.backend.backend() == "tensorflow" and len(x.shape) > 1 and x.shape[-1] and x.shape[-1] > 1:
        return _column_sums(reshape(x, (-1, x.shape[-1])))
    return reshape(norm(x), (1,))


def _column_sums(matrix: Any) -> Any:
    """Sums each column by a product, which takes half the time of a sum over the first axis."""
    ones = keras.ops.ones((1, keras.ops.shape(matrix)[0]), matrix.dtype)
    return keras.ops.squeeze(keras.ops.matmul(ones, matrix), 0)


def _add(several: list[Any]) -> Any:
    total = several[0]
    for each in several[1:]:
        total = total + each
    return total


def _count_nonfinite(x: Any) -> Any:
    return keras.ops.sum(keras.ops.cast(keras.ops.logical_not(keras.ops.isfinite(as_float(x))), "float32"))
