"""A sample of a tensor's elements, spread over all of it, taken where the tensor is."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

BLOCK = 64  # elements, next to each other in memory
_GOLDEN = (math.sqrt(5) - 1) / 2


def sample_of(tensor: Any, size: int | None) -> Any:
    """At most `size` of a tensor's elements, as a vector; all of them if there are no more, or `size` is `None`.

    The tensor is cut into blocks of about 64 neighbours and these into as many equal stretches as blocks are
    wanted; one block is taken of each stretch, at the place that multiples of the golden ratio give, which keep
    step with neither rows, channels nor images.

    Args:
        tensor: of any shape; only its first dimension may be unknown while a graph is traced.
        size: number of elements.
    """
    ops = keras.ops
    shape = tuple(tensor.shape)
    known = None not in shape
    if size is None or (known and math.prod(shape) <= size):
        return ops.reshape(tensor, (-1,))
    inner = math.prod(shape) if known else math.prod(n or 1 for n in shape[1:])
    width = _block_width(inner)
    blocks = ops.reshape(tensor, (-1, width))
    wanted = max(1, size // width)
    places = np.arange(wanted) + np.arange(wanted) * _GOLDEN % 1
    if known:
        available = math.prod(shape) // width
        if available <= wanted:
            return ops.reshape(tensor, (-1,))
        chosen = (places * (available / wanted)).astype("int32")
    else:
        available = ops.shape(blocks)[0]
        taken = ops.minimum(available, wanted)
        stretch = ops.cast(available, "float64") / ops.cast(taken, "float64")
        chosen = ops.cast(ops.convert_to_tensor(places, "float64")[:taken] * stretch, "int32")
    return ops.reshape(ops.take(blocks, chosen, axis=0), (-1,))


def _block_width(inner: int) -> int:
    """The divisor of `inner` that is nearest to a block's size, by its logarithm."""
    divisors = {d for n in range(1, math.isqrt(inner) + 1) if inner % n == 0 for d in (n, inner // n)}
    return min(sorted(divisors), key=lambda divisor: abs(math.log(divisor / BLOCK)), default=1)
