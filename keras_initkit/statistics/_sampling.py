"""A sample of a tensor's elements, spread over all of it, taken where the tensor is."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

BLOCK = 64  # elements, next to each other in memory
_WIDTH = 512  # of the rows that are reduced: in one of 64 elements, calling costs more than adding
_GOLDEN = (math.sqrt(5) - 1) / 2


def sample_of(tensor: Any, size: int | None) -> Any:
    """At most `size` of a tensor's elements, as a vector; all of them if there are no more, or `size` is `None`.

    Blocks of up to 64 neighbours are cut into as many equal stretches as are wanted, and one is taken of each
    stretch, at the place that multiples of the golden ratio give: they keep step with neither rows, channels nor
    images.

    Args:
        tensor: of any shape; only its first dimension may be unknown while a graph is traced.
        size: number of elements.
    """
    return keras.ops.reshape(_taken(tensor, size), (-1,))


def blocks_of(tensor: Any, size: int | None) -> Any:
    """The elements of `sample_of` as a matrix of at most 512 columns."""
    taken = _taken(tensor, size)
    if taken is not tensor and taken.shape[0] is None:
        return taken
    return keras.ops.reshape(taken, (-1, math.gcd(_known_elements(taken), _WIDTH)))


def _taken(tensor: Any, size: int | None) -> Any:
    """The tensor itself, or rows of at most 64 of its elements."""
    inner = _known_elements(tensor)
    if size is None or (None not in tensor.shape and inner <= size):
        return tensor
    width = math.gcd(inner, BLOCK)
    return spread(keras.ops.reshape(tensor, (-1, width)), max(1, size // width))


def _known_elements(tensor: Any) -> int:
    """Of the tensor, or of each entry along a first dimension that is not known."""
    shape = tuple(tensor.shape)
    return math.prod(shape) if None not in shape else math.prod(n or 1 for n in shape[1:])


def spread(rows: Any, wanted: int) -> Any:
    """At most `wanted` rows of a matrix, from all over it."""
    from keras_initkit.statistics._ops import take_rows  # that package needs this module

    ops = keras.ops
    places = np.arange(wanted) + np.arange(wanted) * _GOLDEN % 1
    available = rows.shape[0]
    if available is not None:
        if available <= wanted:
            return rows
        return take_rows(rows, (places * (available / wanted)).astype("int32"))
    # In float32 a place may be off by a few rows, and no more.
    available = ops.shape(rows)[0]
    taken = ops.minimum(available, wanted)
    stretch = ops.cast(available, "float32") / ops.cast(taken, "float32")
    chosen = ops.cast(ops.convert_to_tensor(places, "float32")[:taken] * stretch, "int32")
    return take_rows(rows, ops.minimum(chosen, available - 1))
