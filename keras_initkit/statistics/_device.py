"""Moments of many tensors at once, on the device: block by block, and the blocks of each tensor merged.

A step has hundreds of tensors, and what a small operation costs is its being called. So the blocks of all tensors
are laid into one matrix; rows of it are reduced in float32, what comes of them in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.statistics._moments import widest_float

# Elements of a tensor up to which its moments are taken block by block in any case, as they cost nothing there.
_SMALL = 4096
# What the sum of squares may be of the sum of squared deviations, so that the difference keeps its digits.
_CANCELLATION = 30


def moments_of_blocks(tensors: Sequence[tuple[int, Any]], number: int, together: bool) -> tuple[Any, ...]:
    """Count, mean, M2 in units of the scale squared, scale, minimum, maximum and zeros: a vector of each.

    As in `Moments`. Deviations within a block come from its sum of squares, which takes one pass over memory where
    squared deviations take four. Where a large mean would cost digits, or squares overflow or vanish, all is done
    again with squares of deviations from a block's mean in units of the largest one. Blocks are merged by the
    formula of Chan, Golub and LeVeque 1979.

    Args:
        tensors: pairs of a tensor's number and its blocks, shape (blocks, width); at least one.
        number: of tensors; those without blocks have a count of 0.
        together: whether blocks of one width are copied into one matrix, as suits samples.
    """
    from keras_initkit.statistics._ops import norm  # that package needs this module

    ops = keras.ops
    groups = grouped(tensors, together)
    matrices = [joined([blocks for _, blocks in group]) for group in groups]
    owner = _owners([each for group in groups for each in group])
    small = [all(_elements(blocks) <= _SMALL for _, blocks in group) for group in groups]
    zeros = [_zeros(x) for x in matrices]
    exact = [_of_each_block(x) if is_small else None for x, is_small in zip(matrices, small, strict=True)]

    def with_care() -> tuple[Any, ...]:
        columns = [_of_each_block(x) if own is None else own for x, own in zip(matrices, exact, strict=True)]
        return _merged_blocks(joined(columns, axis=1), joined(zeros), owner, number)

    if all(small):
        return with_care()
    norms = [None if own is not None else norm(x, axis=1) for x, own in zip(matrices, exact, strict=True)]
    columns = [
        own if own is not None else _from_norms(x, norms_of_x)
        for x, own, norms_of_x in zip(matrices, exact, norms, strict=True)
    ]
    quick = _merged_blocks(joined(columns, axis=1), joined(zeros), owner, number)
    count, mean, m2, scale, minimum, maximum, _ = quick
    judged = np.zeros(number, bool)
    judged[[place for group, is_small in zip(groups, small, strict=True) if not is_small for place, _ in group]] = True
    deviations = m2 * ops.square(scale)
    squares = deviations + count * ops.square(mean)
    precise = ops.logical_and(squares <= _CANCELLATION * deviations, squares >= 1e-32 * count)
    precise = ops.logical_and(precise, ops.isfinite(squares))
    precise = ops.logical_or(precise, ops.equal(minimum, maximum))
    return ops.cond(ops.all(ops.logical_or(precise, ops.convert_to_tensor(~judged))), lambda: quick, with_care)


def _merged_blocks(columns: Any, zeros: Any, owner: Any, number: int) -> tuple[Any, ...]:
    """What `moments_of_blocks` returns, from the rows of `_of_each_block`."""
    ops = keras.ops
    columns, zeros = on_every_device(columns), on_every_device(zeros)
    width, total, squares, block_scale, low, high = ops.unstack(columns, 6)

    def summed(*values: Any) -> list[Any]:
        return ops.unstack(ops.segment_sum(ops.stack(values, axis=1), owner, num_segments=number), len(values), axis=1)

    count, sums, zeros = summed(width, total, zeros)
    mean = sums / ops.maximum(count, 1.0)
    extremes = ops.segment_max(ops.stack([-low, high], axis=1), owner, num_segments=number)
    minimum, maximum = -extremes[:, 0], extremes[:, 1]
    scale = ops.maximum(maximum - mean, mean - minimum)
    scale = ops.where(ops.logical_and(scale > 0, count > 0), scale, ops.ones_like(scale))
    own = ops.take(ops.stack([mean, scale], axis=1), owner, axis=0)
    between = (total / width - own[:, 0]) / own[:, 1]
    (m2,) = summed(squares * ops.square(block_scale / own[:, 1]) + width * ops.square(between))
    # The mean of equal values is off by its rounding, which would leave them a variance. TensorFlow's extremes pass
    # over NaN, its sums do not.
    constant = ops.logical_and(ops.equal(minimum, maximum), ops.isfinite(mean))
    return count, mean, ops.where(constant, ops.zeros_like(m2), m2), scale, minimum, maximum, zeros


def _elements(blocks: Any) -> float:
    return math.inf if blocks.shape[0] is None else blocks.shape[0] * blocks.shape[1]


def grouped(tensors: Sequence[tuple[int, Any]], together: bool) -> list[list[tuple[int, Any]]]:
    """The tensors whose blocks are joined: those of one width and dtype, or each by itself."""
    groups: dict[Any, list[tuple[int, Any]]] = {}
    for number, (place, blocks) in enumerate(tensors):
        key = (blocks.shape[1], str(blocks.dtype), _elements(blocks) <= _SMALL) if together else number
        groups.setdefault(key, []).append((place, as_float(blocks)))
    return list(groups.values())


def joined(tensors: Sequence[Any], axis: int = 0) -> Any:
    """One after the other along an axis."""
    return tensors[0] if len(tensors) == 1 else keras.ops.concatenate(list(tensors), axis=axis)


def on_every_device(x: Any) -> Any:
    """The same tensor, a copy of it on each device under a `keras.distribution`.

    A sum over segments of what is split unevenly over devices goes wrong in XLA: rows that only fill the last part up
    are added to the first segment.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return x
    layout = keras.distribution.TensorLayout([None] * len(x.shape), distribution.device_mesh)
    return keras.distribution.distribute_tensor(x, layout)


def as_float(x: Any) -> Any:
    """In float32, unless it is wider."""
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else keras.ops.cast(x, "float32")


def _owners(tensors: Sequence[tuple[int, Any]]) -> Any:
    """The number of the tensor for each of all their blocks."""
    ops = keras.ops
    if all(blocks.shape[0] is not None for _, blocks in tensors):
        places, counts = zip(*[(place, blocks.shape[0]) for place, blocks in tensors], strict=True)
        return ops.convert_to_tensor(np.repeat(np.array(places, "int32"), counts))
    return joined([ops.full((ops.shape(blocks)[0],), place, dtype="int32") for place, blocks in tensors])


def _of_each_block(x: Any) -> Any:
    """Width, sum, squares, scale and extremes of each row: shape (6, rows)."""
    ops = keras.ops
    total, low, high = ops.sum(x, axis=1), ops.min(x, axis=1), ops.max(x, axis=1)
    mean = total / x.shape[1]
    scale = ops.maximum(high - mean, mean - low)
    scale = ops.where(scale > 0, scale, ops.ones_like(scale))
    squares = ops.sum(ops.square((x - mean[:, None]) / scale[:, None]), axis=1)
    return _stacked(ops.full_like(total, x.shape[1]), total, squares, scale, low, high)


def _from_norms(x: Any, norms: Any) -> Any:
    """The same with a scale of 1, from the norm of each row."""
    ops = keras.ops
    total = ops.cast(ops.sum(x, axis=1), widest_float())
    squares = ops.maximum(ops.square(ops.cast(norms, widest_float())) - ops.square(total) / x.shape[1], 0)
    width, one = ops.full_like(total, x.shape[1]), ops.ones_like(total)
    return _stacked(width, total, squares, one, ops.min(x, axis=1), ops.max(x, axis=1))


def _stacked(*fields: Any) -> Any:
    return keras.ops.stack([keras.ops.cast(field, widest_float()) for field in fields])


def _zeros(x: Any) -> Any:
    ops = keras.ops
    return ops.cast(ops.sum(ops.cast(ops.equal(x, 0), "float32"), axis=1), widest_float())


# Bins of both signs; what is smaller than 1e-36 counts as zero, the last ones end where float32 does.
_LOWEST, _HIGHEST, _PER_DECADE = -36, 12, 8
_MAGNITUDES = 10.0 ** (np.arange(_LOWEST * _PER_DECADE, _HIGHEST * _PER_DECADE + 1) / _PER_DECADE)
_MAGNITUDES = np.append(_MAGNITUDES, float(np.finfo("float32").max))
LOG_EDGES = np.concatenate([-_MAGNITUDES[::-1], _MAGNITUDES])
BINS = len(LOG_EDGES) - 1


def counts_of_blocks(tensors: Sequence[tuple[int, Any]], number: int, together: bool) -> Any:
    """How many finite elements of each tensor lie between each two of `LOG_EDGES`: shape (number, BINS).

    Edges are met up to a rounding of 2e-6. For the arguments see `moments_of_blocks`.
    """
    ops = keras.ops
    total = 0
    for group in grouped(tensors, together):
        x = ops.cast(joined([blocks for _, blocks in group]), "float32")
        owner = _owners(group)
        finite = ops.isfinite(x)
        size = ops.log10(ops.abs(ops.where(finite, x, ops.zeros_like(x))))
        place = ops.clip(ops.floor(_PER_DECADE * (size - _LOWEST)) + 1, 0, BINS // 2)
        place = ops.cast(BINS // 2 + place * ops.sign(ops.where(finite, x, ops.zeros_like(x))), "int32")
        place = ops.reshape(owner[:, None] * BINS + place, (-1,))
        ones = ops.reshape(ops.cast(finite, "float32"), (-1,))
        total = total + ops.segment_sum(ones, place, num_segments=number * BINS)
    return ops.reshape(total, (number, BINS))


def trimmed(counts: np.ndarray) -> tuple[tuple[int, ...], tuple[float, ...]] | None:
    """Counts and edges from the first occupied bin to the last; `None` of nothing."""
    occupied = np.flatnonzero(counts)
    if not occupied.size:
        return None
    first, last = occupied[0], occupied[-1] + 1
    return tuple(int(n) for n in counts[first:last]), tuple(float(edge) for edge in LOG_EDGES[first : last + 1])
