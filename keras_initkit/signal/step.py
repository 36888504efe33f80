"""What a measured training step reads, reduced on the device to one matrix, and that matrix as rows of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit.signal.moments import EMPTY_ROW, Moments, reduce_on_device, widest_float
from keras_initkit.signal.report import Histogram, TensorStats
from keras_initkit.signal.sampling import sample_of
from keras_initkit.signal.units import SATURATION_DEPTH, SATURATION_SHARE
from keras_initkit.structure.taps import Tap

DEFAULT_SAMPLE = 20480  # a Gaussian's variance to 0.99 %: sqrt(2 / 20480)
Limits = tuple[float, float]
_UNITS = ("saturated", "dead_units", "saturated_units")
# Bins of both signs; what is smaller than 1e-36 counts as zero, the last ones end where float32 does.
_LOWEST, _HIGHEST, _PER_DECADE = -36, 12, 8
_MAGNITUDES = 10.0 ** (np.arange(_LOWEST * _PER_DECADE, _HIGHEST * _PER_DECADE + 1) / _PER_DECADE)
_MAGNITUDES = np.append(_MAGNITUDES, float(np.finfo("float32").max))
LOG_EDGES = np.concatenate([-_MAGNITUDES[::-1], _MAGNITUDES])


@dataclass(frozen=True)
class StepReading:
    """What of each layer a measured step reads.

    Args:
        kinds: of taps, see `structure.taps.KINDS`.
        sample_size: number of elements of each tensor that moments are taken of, spread over the batch; `None`
            reads all. NaN and infinities are found wherever they are.
    """

    kinds: tuple[str, ...] = ("output", "output_gradient", "weight", "weight_gradient", "weight_update")
    sample_size: int | None = DEFAULT_SAMPLE


class Update(NamedTuple):
    """A weight's update, for `reduce_taps`: so that only a sample of the weight is kept through the step.

    Args:
        before: `sample_of(weight, sample_size)` before the step.
        after: the weight after it.
    """

    before: Any
    after: Any


def reduce_taps(
    tensors: Mapping[Tap, Sequence[Any]],
    limits: Mapping[str, Limits],
    sample_size: int | None,
    histograms: bool = False,
) -> Any:
    """Statistics of all that the taps saw, computed where the tensors are: a matrix with a row for each tap.

    Args:
        tensors: what each tap saw, in one or more calls, units last; an empty row where that is nothing. For a
            `"weight_update"` tap an `Update` for each weight.
        limits: range of each layer's activation (`theory.activation_range`), by the layer's path.
        sample_size: see `StepReading`.
        histograms: whether rows end with counts of `LOG_EDGES`.
    """
    ops = keras.ops
    rows = []
    for tap, seen in tensors.items():
        if not seen:
            rows.append(ops.convert_to_tensor(_nothing(histograms), widest_float()))
            continue
        whole, sample = _whole_and_sample(seen, sample_size)
        moments = reduce_on_device(sample)
        if sample_size is not None:
            moments = ops.concatenate([moments[:-1], ops.reshape(_nonfinite(whole), (1,))], axis=0)
        units = [ops.cast(x, moments.dtype) for x in _of_units(tap, seen, limits.get(tap.layer))]
        row = [moments, ops.stack(units)]
        if histograms:
            row.append(ops.cast(_counts(sample), moments.dtype))
        rows.append(ops.concatenate(row, axis=0))
    return ops.stack(rows)


def rows_of(taps: Sequence[Tap], matrix: Any, layer_types: Mapping[str, str]) -> list[TensorStats]:
    """The matrix of `reduce_taps`, once it is on the host; taps that saw nothing are left out."""
    rows = []
    first, last = len(EMPTY_ROW), len(EMPTY_ROW) + len(_UNITS)
    for tap, values in zip(taps, np.asarray(matrix, "float64"), strict=True):
        moments = Moments.from_row(values[:first])
        if moments.count:
            units = [None if np.isnan(x) else float(x) for x in values[first:last]]
            fields = dict(zip(_UNITS, units, strict=True))
            histogram = _trimmed(values[last:])
            rows.append(TensorStats(tap, moments, layer_types.get(tap.layer, ""), **fields, histogram=histogram))
    return rows


def _nothing(histograms: bool) -> list[float]:
    return [*EMPTY_ROW, *[math.nan] * len(_UNITS), *[0.0] * ((len(LOG_EDGES) - 1) * histograms)]


def _joined(tensors: Sequence[Any]) -> Any:
    if len(tensors) == 1:
        return tensors[0]
    return keras.ops.concatenate([keras.ops.reshape(x, (-1,)) for x in tensors], axis=0)


def _whole_and_sample(seen: Sequence[Any], sample_size: int | None) -> tuple[Any, Any]:
    """All elements, and those that moments are taken of."""
    if not isinstance(seen[0], Update):
        whole = _joined(seen)
        return whole, sample_of(whole, sample_size)
    updates = [
        keras.ops.cast(sample_of(u.after, sample_size), "float32")
        - keras.ops.cast(keras.ops.reshape(u.before, (-1,)), "float32")
        for u in seen
    ]
    # A weight that is finite after the step had a finite update, and the other way round.
    return _joined([u.after for u in seen]), sample_of(_joined(updates), sample_size)


def _nonfinite(x: Any) -> Any:
    """How many elements are NaN or infinite. Where the sum is finite, there are none."""
    ops = keras.ops

    wide = widest_float()

    def number() -> Any:
        return ops.sum(ops.cast(ops.logical_not(ops.isfinite(x)), wide))

    total = ops.sum(x if x.dtype == "float64" else ops.cast(x, "float32"))
    return ops.cond(ops.isfinite(total), lambda: ops.zeros((), wide), number)


def _of_units(tap: Tap, seen: Sequence[Any], limits: Limits | None) -> list[Any]:
    """Share of saturated elements, of dead and of saturated units of an output; NaN where it has no such thing."""
    ops = keras.ops
    saturated = dead_units = saturated_units = math.nan
    if tap.kind == "output" and all(len(x.shape) > 1 for x in seen) and len({x.shape[-1] for x in seen}) == 1:
        matrix = _joined_rows(seen)
        dead_units = 1 - ops.mean(ops.cast(ops.any(ops.not_equal(matrix, 0), axis=0), "float32"))
        if limits is not None and np.isfinite(limits).all():
            middle, half = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
            at_an_end = ops.cast(ops.abs(matrix - middle) > SATURATION_DEPTH * half, "float32")
            saturated = ops.mean(at_an_end)
            saturated_units = ops.mean(ops.cast(ops.mean(at_an_end, axis=0) >= SATURATION_SHARE, "float32"))
    return [saturated, dead_units, saturated_units]


def _joined_rows(seen: Sequence[Any]) -> Any:
    ops = keras.ops
    rows = [ops.cast(ops.reshape(x, (-1, x.shape[-1])), "float32") for x in seen]
    return rows[0] if len(rows) == 1 else ops.concatenate(rows, axis=0)


def _counts(sample: Any) -> Any:
    """How many finite elements lie between each two of `LOG_EDGES`, up to a rounding (2e-6) of the edges."""
    ops = keras.ops
    x = ops.cast(sample, "float32")
    finite = ops.isfinite(x)
    size = ops.log10(ops.abs(ops.where(finite, x, ops.zeros_like(x))))
    bins = len(_MAGNITUDES) - 1
    place = ops.clip(ops.floor(_PER_DECADE * (size - _LOWEST)) + 1, 0, bins)
    place = ops.cast(bins + place * ops.sign(x), "int32")
    return ops.segment_sum(ops.cast(finite, "float32"), ops.where(finite, place, 0), num_segments=2 * bins + 1)


def _trimmed(counts: np.ndarray) -> Histogram | None:
    """Counts and edges from the first occupied bin to the last."""
    occupied = np.flatnonzero(counts)
    if not occupied.size:
        return None
    part = slice(occupied[0], occupied[-1] + 1)
    edges = LOG_EDGES[occupied[0] : occupied[-1] + 2]
    return tuple(int(n) for n in counts[part]), tuple(float(edge) for edge in edges)
