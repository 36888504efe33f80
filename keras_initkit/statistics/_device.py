"""Moments of many tensors at once, on the device: block by block, and the blocks of each tensor merged.

A step has hundreds of tensors, and the cost of a small operation is that it is called. Therefore the blocks of several
tensors are laid into one matrix; its rows are reduced in float32, the results in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit.statistics._host import Histogram
from keras_initkit.statistics._moments import MomentRow
from keras_initkit.statistics._ops import (
    as_float,
    concatenate,
    most_together,
    norm,
    replicated,
    segment_sum,
    widest_float,
)

# Tensors of up to so many elements are always reduced with care, which costs nothing there.
_SMALL = 4096
# A sum of squares up to so many times that of squared deviations leaves enough digits in their difference.
_CANCELLATION = 30

Blocks = tuple[int, Any]  # a tensor's number, and its elements as a matrix of shape (blocks, width)


class _Columns(NamedTuple):
    """The rows of the matrix of shape (7, blocks) that holds the reduced blocks, in this order.

    `squares` are squared deviations from the block's mean in units of `scale`.
    """

    width: Any
    total: Any
    squares: Any
    scale: Any
    minimum: Any
    maximum: Any
    zeros: Any


def reduce_blocks(tensors: Sequence[Blocks], number: int, together: bool) -> MomentRow:
    """Returns the moments of each tensor: a vector for each column of `MomentRow`, `nonfinite` being `None`.

    Deviations within a block come from its sum of squares, which takes one pass over memory where squared deviations
    take four. Where a large mean would cost digits, or squares overflow or vanish, all is done again with squared
    deviations from a block's mean in units of the largest one. Blocks are merged by the formula of `Moments`.

    Args:
        tensors: Pairs of a tensor's number, below `number`, and its blocks; at least one pair.
        together: Whether blocks of one width are copied together, up to `most_together`, which is faster for samples.
    """
    ops = keras.ops
    groups = sorted(_group_blocks(tensors, together), key=_is_small, reverse=True)
    pieces = [_pieces(group) for group in groups]
    owner = _number_blocks([each for group in groups for each in group])
    small = sum(map(_is_small, groups))
    exact = [_reduce_carefully(concatenate(several)) for several in pieces[:small]]

    def reduce(large: list[Any]) -> tuple[Any, ...]:  # `MomentRow` without its last field
        return tuple(_merge_blocks(concatenate([*exact, *large], axis=1), owner, number)[:-1])

    def with_care() -> tuple[Any, ...]:
        return reduce([_reduce_carefully(concatenate(several)) for several in pieces[small:]])

    # On JAX a branch is compiled whether it is taken or not, and takes longer than care about samples.
    if small == len(groups) or (together and keras.backend.backend() == "jax"):
        return MomentRow(*with_care())
    quick = reduce([_reduce_quickly([x for several in pieces[small:] for x in several])])
    count, mean, m2, scale, minimum, maximum, _ = quick
    large = np.zeros(number, bool)
    large[[place for group in groups[small:] for place, _ in group]] = True
    deviations = m2 * ops.square(scale)
    squares = deviations + count * ops.square(mean)
    precise = ops.logical_and(squares <= _CANCELLATION * deviations, squares >= 1e-32 * count)
    precise = ops.logical_and(precise, ops.isfinite(squares))
    precise = ops.logical_or(precise, ops.logical_and(ops.equal(minimum, maximum), ops.isfinite(mean)))
    all_precise = ops.all(ops.logical_or(precise, ops.convert_to_tensor(~large)))
    return MomentRow(*ops.cond(all_precise, lambda: quick, with_care))


def _merge_blocks(columns: Any, owner: Any, number: int) -> MomentRow:
    """Merges the blocks of each tensor, as `reduce_blocks` returns them."""
    ops = keras.ops
    blocks = _Columns(*ops.unstack(replicated(columns), len(_Columns._fields)))

    def summed(*values: Any) -> list[Any]:
        return ops.unstack(segment_sum(ops.stack(values, axis=1), owner, number), len(values), axis=1)

    count, sums, zeros = summed(blocks.width, blocks.total, blocks.zeros)
    mean = sums / ops.maximum(count, 1.0)
    extremes = ops.stack([-blocks.minimum, blocks.maximum], axis=1)
    extremes = ops.segment_max(extremes, owner, num_segments=number)
    minimum, maximum = -extremes[:, 0], extremes[:, 1]
    scale = ops.maximum(maximum - mean, mean - minimum)
    scale = ops.where(ops.logical_and(scale > 0, count > 0), scale, ops.ones_like(scale))
    own_mean, own_scale = ops.unstack(ops.take(ops.stack([mean, scale], axis=1), owner, axis=0), 2, axis=1)
    between = (blocks.total / blocks.width - own_mean) / own_scale
    within = blocks.squares * ops.square(blocks.scale / own_scale)
    (m2,) = summed(within + blocks.width * ops.square(between))
    # The mean of equal values is off by its rounding, which would leave them a variance. TensorFlow's extremes pass
    # over NaN, its sums do not.
    constant = ops.logical_and(ops.equal(minimum, maximum), ops.isfinite(mean))
    m2 = ops.where(constant, ops.zeros_like(m2), m2)
    return MomentRow(count, mean, m2, scale, minimum, maximum, zeros, None)


def _elements(blocks: Any) -> float:
    return math.inf if blocks.shape[0] is None else blocks.shape[0] * blocks.shape[1]


def _group_blocks(tensors: Sequence[Blocks], together: bool) -> list[list[Blocks]]:
    """Groups the tensors whose blocks become one matrix: those of one width and dtype, or each by itself."""
    groups: dict[Any, list[Blocks]] = {}
    for number, (place, blocks) in enumerate(tensors):
        key = (blocks.shape[1], str(blocks.dtype), _elements(blocks) <= _SMALL) if together else number
        groups.setdefault(key, []).append((place, as_float(blocks)))
    return list(groups.values())


def _is_small(group: list[Blocks]) -> bool:
    return all(_elements(blocks) <= _SMALL for _, blocks in group)


def _pieces(group: list[Blocks]) -> list[Any]:
    """Returns the blocks of a group as matrices that are reduced one by one: on TensorFlow some that fit into a cache.

    To copy samples into one matrix and to read that from memory takes twice as long as to reduce one after the other.
    """
    pieces: list[list[Any]] = []
    size = 0.0
    for _, blocks in group:
        size += _elements(blocks)
        if not pieces or size > most_together():
            pieces.append([])
            size = _elements(blocks)
        pieces[-1].append(blocks)
    return [concatenate(several) for several in pieces]


def _number_blocks(tensors: Sequence[Blocks]) -> Any:
    """Returns the number of its tensor for each of the blocks."""
    ops = keras.ops
    if all(blocks.shape[0] is not None for _, blocks in tensors):
        places, counts = zip(*[(place, blocks.shape[0]) for place, blocks in tensors], strict=True)
        return ops.convert_to_tensor(np.repeat(np.array(places, "int32"), counts))
    return concatenate([ops.full((ops.shape(blocks)[0],), place, dtype="int32") for place, blocks in tensors])


def _reduce_carefully(x: Any) -> Any:
    """Reduces each row to `_Columns`, with squared deviations in units of the largest one."""
    ops = keras.ops
    total, low, high = ops.sum(x, axis=1), ops.min(x, axis=1), ops.max(x, axis=1)
    mean = total / x.shape[1]
    scale = ops.maximum(high - mean, mean - low)
    unit = ops.where(scale > 0, scale, ops.ones_like(scale))
    deviations = (x - mean[:, None]) / unit[:, None]
    squares = ops.sum(ops.square(deviations), axis=1)
    # The sum of a large mean is rounded; what the deviations from the rounded mean leave says by how much.
    wide = [ops.cast(each, widest_float()) for each in (mean, ops.sum(deviations, axis=1), unit)]
    total = ops.where(ops.isfinite(wide[1]), x.shape[1] * wide[0] + wide[1] * wide[2], ops.cast(total, wide[0].dtype))
    # Of equal elements the scale is 0, not 1: in units of another block's, the square of 1 may overflow to 0 * inf.
    zeros = ops.sum(ops.cast(ops.equal(x, 0), "float32"), axis=1)
    return _stack(_Columns(ops.full_like(total, x.shape[1]), total, squares, scale, low, high, zeros))


def _reduce_quickly(matrices: Sequence[Any]) -> Any:
    """Reduces each row of each matrix to `_Columns` with a scale of 1, by its norm."""
    ops = keras.ops
    reduced = [
        (
            ops.full_like(x[:, 0], x.shape[1]),
            norm(x, axis=1),
            ops.sum(x, axis=1),
            ops.min(x, axis=1),
            ops.max(x, axis=1),
            norm(ops.sign(x), axis=1),  # to compare with 0 takes four times as long, but a NaN has no sign
        )
        for x in matrices
    ]
    widths, norms, total, low, high, others = (concatenate(several) for several in zip(*reduced, strict=True))
    width, norms, total = (ops.cast(each, widest_float()) for each in (widths, norms, total))
    squares = ops.square(norms) - ops.square(total) / width  # of nearly equal elements below 0, by rounding
    zeros = widths - ops.round(ops.square(others))
    return _stack(_Columns(width, total, squares, ops.ones_like(total), low, high, zeros))


def _stack(columns: _Columns) -> Any:
    return keras.ops.stack([keras.ops.cast(column, widest_float()) for column in columns])


# Bins of both signs. What is smaller than 1e-36 counts as zero; the last bins end where float32 does.
_LOWEST, _HIGHEST, _PER_DECADE = -36, 12, 8
_MAGNITUDES = 10.0 ** (np.arange(_LOWEST * _PER_DECADE, _HIGHEST * _PER_DECADE + 1) / _PER_DECADE)
_MAGNITUDES = np.append(_MAGNITUDES, float(np.finfo("float32").max))
LOG_EDGES = np.concatenate([-_MAGNITUDES[::-1], _MAGNITUDES])
BINS = len(LOG_EDGES) - 1


def count_by_magnitude(tensors: Sequence[Blocks], number: int, together: bool) -> Any:
    """Returns counts between neighbors in `LOG_EDGES`, `(number, BINS)`, exact up to a rounding of 2e-6."""
    ops = keras.ops
    total = 0
    for group in _group_blocks(tensors, together):
        x = ops.cast(concatenate([blocks for _, blocks in group]), "float32")
        owner = _number_blocks(group)
        finite = ops.isfinite(x)
        size = ops.log10(ops.abs(ops.where(finite, x, ops.zeros_like(x))))
        place = ops.clip(ops.floor(_PER_DECADE * (size - _LOWEST)) + 1, 0, BINS // 2)
        place = ops.cast(BINS // 2 + place * ops.sign(ops.where(finite, x, ops.zeros_like(x))), "int32")
        place = ops.reshape(owner[:, None] * BINS + place, (-1,))
        ones = ops.reshape(ops.cast(finite, "float32"), (-1,))
        total = total + segment_sum(ones, place, number * BINS)
    return ops.reshape(total, (number, BINS))


def trim_histogram(counts: np.ndarray) -> Histogram | None:
    """Returns counts and edges from the first occupied bin to the last; `None` if all are empty."""
    occupied = np.flatnonzero(counts)
    if not occupied.size:
        return None
    first, last = occupied[0], occupied[-1] + 1
    return tuple(int(n) for n in counts[first:last]), tuple(float(edge) for edge in LOG_EDGES[first : last + 1])
