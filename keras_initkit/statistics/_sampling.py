"""A sample of a tensor's elements, spread over all of it, taken where the tensor is."""

from __future__ import annotations

import functools
import math
from typing import Any

import keras
import numpy as np

from keras_initkit.statistics._ops import reshape, take_rows

BLOCK = 64  # elements, next to each other in memory
_WIDTH = 512  # of the rows that are reduced: with rows of 64, calling would cost more than adding
_GOLDEN = (math.sqrt(5) - 1) / 2


def take_sample(tensor: Any, size: int | None) -> Any:
    """Returns at most `size` of a tensor's elements as a vector; all if there are no more, or `size` is `None`.

    The tensor is seen as blocks of up to 64 neighbors. They are divided into as many equal stretches as blocks are
    wanted, and one block is taken from each stretch, at the place that multiples of the golden ratio give: these
    keep step with neither rows, channels nor images. Only the first dimension may be unknown while a graph is traced.
    """
    return reshape(_take(tensor, size), (-1,))


def take_blocks(tensor: Any, size: int | None) -> Any:
    """Returns the elements of `take_sample` as a matrix of at most 512 columns."""
    taken = _take(tensor, size)
    if taken is not tensor and taken.shape[0] is None:
        return taken
    return reshape(taken, (-1, math.gcd(_known_elements(taken), _WIDTH)))


def _take(tensor: Any, size: int | None) -> Any:
    """Returns the tensor itself, or rows of at most 64 of its elements."""
    inner = _known_elements(tensor)
    if size is None or (None not in tensor.shape and inner <= size):
        return tensor
    width = math.gcd(inner, BLOCK)
    return spread_rows(reshape(tensor, (-1, width)), max(1, size // width))


def _known_elements(tensor: Any) -> int:
    """Counts the elements of the tensor, or of each entry along a first dimension that is not known."""
    shape = tuple(tensor.shape)
    return math.prod(shape) if None not in shape else math.prod(n or 1 for n in shape[1:])


def spread_rows(rows: Any, wanted: int) -> Any:
    """Returns at most `wanted` rows of a matrix, spread over all of it."""
    ops = keras.ops
    available = rows.shape[0]
    if available is not None:
        if available <= wanted:
            return rows
        return take_rows(rows, _choose_rows(wanted, available))
    # In float32 a place may be off by a few rows, and no more.
    places = spread_places(wanted, wanted)
    available = ops.shape(rows)[0]
    taken = ops.minimum(available, wanted)
    stretch = ops.cast(available, "float32") / ops.cast(taken, "float32")
    chosen = ops.cast(ops.convert_to_tensor(places, "float32")[:taken] * stretch, "int32")
    return take_rows(rows, ops.minimum(chosen, available - 1))


@functools.lru_cache(maxsize=256)  # on PyTorch every measured step asks again, for each of its tensors
def _choose_rows(wanted: int, available: int) -> np.ndarray:
    """Returns the numbers of `wanted` rows, each at most once, of more that are available."""
    # Neighboring places lie at least 0.618 stretches apart. Where that is less than a row, some rows would be
    # taken twice: then the rows that are left out are chosen.
    if available > (1 + _GOLDEN) * wanted:
        return spread_places(wanted, available).astype("int32")
    left_out = spread_places(available - wanted, available).astype("int32")
    return np.delete(np.arange(available, dtype="int32"), left_out)


def spread_places(number: int, available: int) -> np.ndarray:
    """Returns `number` places from 0 to `available`, one in each of so many equal stretches."""
    steps = np.arange(number)
    return (steps + steps * _GOLDEN % 1) * (available / number)
