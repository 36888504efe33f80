"""What a measured training step reads, reduced on the device to one matrix, and that matrix as rows of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_initkit.signal.moments import EMPTY_ROW, Moments, reduce_on_device, widest_float
from keras_initkit.signal.report import TensorStats
from keras_initkit.signal.units import SATURATION_DEPTH, SATURATION_SHARE
from keras_initkit.structure.taps import Tap

DEFAULT_SAMPLE = 32768
Limits = tuple[float, float]


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


def reduce_taps(
    tensors: Mapping[Tap, Sequence[Any]],
    limits: Mapping[str, Limits],
    sample_size: int | None,
    histograms: bool = False,
) -> Any:
    """Statistics of all that the taps saw, computed where the tensors are: a matrix with a row for each tap.

    Args:
        tensors: what each tap saw, in one or more calls; an empty row where that is nothing.
        limits: range of each layer's activation (`theory.activation_range`), by the layer's path.
        sample_size: see `StepReading`.
        histograms: whether rows end with counts of `LOG_EDGES`.
    """
    return keras.ops.stack([_row(tap, list(seen), limits.get(tap.layer)) for tap, seen in tensors.items()])


def rows_of(taps: Sequence[Tap], matrix: Any, layer_types: Mapping[str, str]) -> list[TensorStats]:
    """The matrix of `reduce_taps`, once it is on the host; taps that saw nothing are left out."""
    rows = []
    for tap, values in zip(taps, np.asarray(matrix, "float64"), strict=True):
        moments = Moments.from_row(values[: len(EMPTY_ROW)])
        if moments.count:
            units = [None if np.isnan(x) else float(x) for x in values[len(EMPTY_ROW) :][:3]]
            fields = dict(zip(("saturated", "dead_units", "saturated_units"), units, strict=True))
            rows.append(TensorStats(tap, moments, layer_types.get(tap.layer, ""), **fields))
    return rows


def _row(tap: Tap, seen: list[Any], limits: Limits | None) -> Any:
    ops = keras.ops
    if not seen:
        return ops.convert_to_tensor([*EMPTY_ROW, *[float("nan")] * 3], widest_float())
    joined = seen[0] if len(seen) == 1 else ops.concatenate([ops.reshape(x, (-1,)) for x in seen], axis=0)
    moments = reduce_on_device(joined)
    units = [float("nan")] * 3
    if tap.kind == "output" and all(len(x.shape) > 1 for x in seen) and len({x.shape[-1] for x in seen}) == 1:
        matrix = ops.concatenate([ops.cast(ops.reshape(x, (-1, x.shape[-1])), "float32") for x in seen], axis=0)
        alive = ops.any(ops.not_equal(matrix, 0), axis=0)
        units[1] = 1 - ops.mean(ops.cast(alive, "float32"))
        if limits is not None and np.isfinite(limits).all():
            middle, half = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
            saturated = ops.cast(ops.abs(matrix - middle) > SATURATION_DEPTH * half, "float32")
            units[0] = ops.mean(saturated)
            units[2] = ops.mean(ops.cast(ops.mean(saturated, axis=0) >= SATURATION_SHARE, "float32"))
    rest = ops.stack([ops.cast(x, moments.dtype) for x in units])
    return ops.concatenate([moments, rest], axis=0)
