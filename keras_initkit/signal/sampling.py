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

    Args:
        tensor: of any shape; only its first dimension may be unknown while a graph is traced.
        size: number of elements.
    """
    return keras.ops.reshape(blocks_of(tensor, size), (-1,))


def blocks_of(tensor: Any, size: int | None) -> Any:
    """The elements of `sample_of` as a matrix of at most 512 columns.

    Blocks of up to 64 neighbours are cut into as many equal stretches as are wanted, and one is taken of each
    stretch, at the place that multiples of the golden ratio give: they keep step with neither rows, channels nor
    images.
    """
    shape = tuple(tensor.shape)
    known = None not in shape
    inner = math.prod(shape) if known else math.prod(n or 1 for n in shape[1:])
    if size is None or (known and inner <= size):
        return keras.ops.reshape(tensor, (-1, math.gcd(inner, _WIDTH)))
    width = math.gcd(inner, BLOCK)
    blocks = spread(keras.ops.reshape(tensor, (-1, width)), max(1, size // width))
    if blocks.shape[0] is None:
        return blocks
    return keras.ops.reshape(blocks, (-1, math.gcd(math.prod(blocks.shape), _WIDTH)))


def spread(rows: Any, wanted: int) -> Any:
    """At most `wanted` rows of a matrix, from all over it."""
    from keras_initkit.signal.backends.native import take_rows  # that package needs this module

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
