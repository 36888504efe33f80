"""What a measured training step reads, reduced on the device to one matrix, and that matrix as rows of a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit.report._rows import TensorStats
from keras_initkit.report._scalars import BUILT_IN, needed_kinds
from keras_initkit.statistics._device import BINS, LOG_EDGES, count_by_magnitude, reduce_blocks, trim_histogram
from keras_initkit.statistics._device_units import UNITS, Limits, measure_activity
from keras_initkit.statistics._moments import MomentRow, Moments
from keras_initkit.statistics._ops import concatenate, widest_float
from keras_initkit.statistics._sampling import take_blocks, take_sample
from keras_initkit.statistics._tap import Tap

__all__ = ["DEFAULT_SAMPLE", "LOG_EDGES", "MeasurementSpec", "Update", "read_rows", "reduce_taps"]

# The columns of the matrix of `reduce_taps`: those of `MomentRow`, those of `UNITS`, counts between `LOG_EDGES`.
_MOMENTS = slice(0, len(MomentRow._fields))
_UNITS = slice(_MOMENTS.stop, _MOMENTS.stop + len(UNITS))
_COUNTS = slice(_UNITS.stop, _UNITS.stop + BINS)
DEFAULT_SAMPLE = 20480  # a Gaussian's variance to 0.99 %: sqrt(2 / 20480)


@dataclass(frozen=True)
class MeasurementSpec:
    """What a measured step reads of each layer.

    Args:
        kinds: Tuple of kinds of taps, see `KINDS`.
        sample_size: Integer. Number of elements of each tensor that moments are computed from, spread over the batch;
            `None` reads all. NaN and infinities are found wherever they are.
        exact: Whether the step that is measured has to compute what a plain one does, to the last bit. Only a compiled
            step of JAX is measured otherwise if it need not.
        nonfinite: Whether NaN and infinities are looked for in every element, which takes a pass over all tensors.
            Otherwise a tensor counts as having one if its sample has.
        units: Whether dead and saturated units are counted, which takes a pass over the outputs.
    """

    kinds: tuple[str, ...] = ("output", "output_gradient", "weight", "weight_gradient", "weight_update")
    sample_size: int | None = DEFAULT_SAMPLE
    exact: bool = True
    nonfinite: bool = True
    units: bool = True

    @classmethod
    def for_statistics(cls, names: Sequence[str], sample_size: int | None, exact: bool = True) -> MeasurementSpec:
        """Returns what these statistics need; those that a user has registered may need everything."""
        own = not BUILT_IN.issuperset(names)
        units = own or not set(names).isdisjoint(UNITS)
        return cls(needed_kinds(names), sample_size, exact, own or "nonfinite" in names, units)

    @classmethod
    def joined(cls, specs: Sequence[MeasurementSpec]) -> MeasurementSpec:
        """Returns what serves all of these."""
        kinds = tuple(dict.fromkeys(kind for spec in specs for kind in spec.kinds))
        sizes = [spec.sample_size for spec in specs]
        size = None if None in sizes else max(size for size in sizes if size is not None)
        nonfinite, units = any(spec.nonfinite for spec in specs), any(spec.units for spec in specs)
        return cls(kinds, size, all(spec.exact for spec in specs), nonfinite, units)


class Update(NamedTuple):
    """A weight's update: `take_sample(weight, sample_size)` before the step (less memory), and the weight after it."""

    before: Any
    after: Any


def reduce_taps(
    tensors: Mapping[Tap, Sequence[Any]],
    limits: Mapping[str, Limits],
    spec: MeasurementSpec,
    histograms: bool = False,
    over_replicas: Callable[[Any], Any] = lambda sums: sums,
    rectified: Collection[str] = (),
) -> Any:
    """Returns statistics of all that the taps saw, computed where the tensors are: a matrix with a row for each tap.

    Its columns are those of `MomentRow`, then `UNITS` (NaN where a tap has no such fraction), then, with
    `histograms`, the counts of elements between neighbors in `LOG_EDGES`.

    Args:
        tensors: What each tap saw in one or more calls, units last; empty lists give rows without elements. For a
            `"weight_update"` tap an `Update` for each weight.
        limits: Range of each layer's activation (`theory.activation_range`), by path.
        spec: How much of them is read; its kinds do not matter.
        over_replicas: Function that sums a vector over the replicas that share the batch.
        rectified: Paths of layers that a separate `ReLU` reads, whose dead units are counted as if they had it.
    """
    ops, number, sample_size = keras.ops, len(tensors), spec.sample_size
    sampled = sample_size is not None
    blocks = [(place, _blocks(seen, sample_size)) for place, seen in enumerate(tensors.values()) if seen]
    blocks = [(place, each) for place, each in blocks if 0 not in each.shape]  # PyTorch has no extremes of nothing
    if not blocks:
        width = _COUNTS.stop if histograms else _UNITS.stop
        return ops.zeros((number, width), widest_float())
    moments = reduce_blocks(blocks, number, together=sampled)
    # A weight that is finite after the step had a finite update, and the other way round.
    whole = {
        tap: [x.after if isinstance(x, Update) else x for x in seen]
        if (spec.units if tap.kind == "output" else spec.nonfinite)
        else []
        for tap, seen in tensors.items()
    }
    means = None if sampled else moments.mean
    nonfinite, units = measure_activity(whole, limits, sample_size, means, over_replicas, rectified)
    if not spec.nonfinite:
        nonfinite = ops.maximum(nonfinite, ops.cast(ops.logical_not(ops.isfinite(moments.mean)), nonfinite.dtype))
    columns = [*moments._replace(nonfinite=nonfinite), *units]
    matrix = ops.stack([ops.cast(column, widest_float()) for column in columns], axis=1)
    if histograms:
        counts = count_by_magnitude(blocks, number, together=sampled)
        matrix = ops.concatenate([matrix, ops.cast(counts, matrix.dtype)], axis=1)
    return matrix


def read_rows(taps: Sequence[Tap], matrix: Any, layer_types: Mapping[str, str]) -> list[TensorStats]:
    """Returns the rows of the matrix of `reduce_taps`, without taps that saw nothing.

    Of one matrix for each replica, signals are merged; weights are the same in all.
    """
    rows: list[TensorStats] = []
    matrix = np.asarray(matrix, "float64")
    if not taps:
        return rows
    matrices = matrix.reshape(-1, *matrix.shape[-2:]).tolist()  # plain numbers, which are much faster one by one
    for tap, *values in zip(taps, *matrices, strict=True):
        if tap.kind.startswith("weight"):
            values = values[:1]
        if any(row[0] for row in values):
            units = [None if math.isnan(x) else x for x in values[0][_UNITS]]
            fields = dict(zip(UNITS, units, strict=True))
            parts = [Moments.from_row(row[_MOMENTS]) for row in values]
            moments = parts[0] if len(parts) == 1 else Moments.merged(parts)
            histogram = trim_histogram(np.sum([row[_COUNTS] for row in values], axis=0))
            rows.append(TensorStats(tap, moments, layer_types.get(tap.layer, ""), **fields, histogram=histogram))
    return rows


def _blocks(seen: Sequence[Any], sample_size: int | None) -> Any:
    """Returns the blocks of elements that moments are computed from."""
    ops = keras.ops
    if isinstance(seen[0], Update):
        seen = [ops.cast(take_sample(x.after, sample_size), "float32") - ops.cast(x.before, "float32") for x in seen]
    if len(seen) == 1:
        return take_blocks(seen[0], sample_size)
    share = None
    if sample_size is not None and all(None not in x.shape for x in seen):  # of each its share, and no copy of all
        share = sample_size / max(1, sum(math.prod(x.shape) for x in seen))
    parts = [take_sample(x, None if share is None else max(1, int(share * math.prod(x.shape)))) for x in seen]
    return take_blocks(concatenate(parts), sample_size)
