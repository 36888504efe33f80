"""Tensor operations that `keras.ops` lacks, or that the frameworks do faster. The only file here that imports them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np

_UNDER_XLA: ContextVar[bool] = ContextVar("under_xla", default=False)


@contextlib.contextmanager
def under_xla(compiled: bool) -> Iterator[None]:
    """Marks what is traced inside as compiled by XLA, which lacks TensorFlow's norm but fuses the steps of one."""
    token = _UNDER_XLA.set(bool(compiled))
    try:
        yield
    finally:
        _UNDER_XLA.reset(token)


def norm(x: Any, axis: int | None = None) -> Any:
    """Returns the square root of the sum of squares over an axis, or over all; infinite where that overflows.

    One pass over memory, without a tensor of squares. `keras.ops.norm` takes four times as long on TensorFlow, and the
    product of a vector with itself seven times.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow" and not _UNDER_XLA.get():
        import tensorflow as tf

        return tf.math.reduce_euclidean_norm(x, axis)
    if backend == "torch":
        import torch

        return torch.linalg.vector_norm(x, dim=axis)
    return keras.ops.sqrt(keras.ops.sum(keras.ops.square(x), axis=axis))  # one loop once XLA has compiled it


def take_rows(x: Any, places: Any) -> Any:
    """Returns `take(x, places, axis=0)` of a matrix for places in range: none is negative or beyond the end.

    What `keras.ops.take` does about those costs more than the rows: six operations on TensorFlow, a mask on JAX.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.gather(x, places)
    if backend == "jax":
        return x.at[places].get(mode="promise_in_bounds")
    if backend == "torch":  # a third of the time of `x[places]`
        import torch

        return x.index_select(0, torch.as_tensor(places, dtype=torch.int64, device=x.device))
    return keras.ops.take(x, places, axis=0)


def reshape(x: Any, shape: Sequence[int]) -> Any:
    """As `keras.ops.reshape`, which on PyTorch first looks for symbolic tensors: thirty times what reshaping takes."""
    return x.reshape(shape) if keras.backend.backend() == "torch" else keras.ops.reshape(x, shape)


def segment_sum(rows: Any, owner: Any, number: int) -> Any:
    """Returns the sums of those rows of a matrix, or entries of a vector, that have one owner, from 0 to `number` - 1.

    On PyTorch `keras.ops.segment_sum` first repeats the owners for each column, which takes longer than the sums.
    """
    if keras.backend.backend() == "torch":
        return rows.new_zeros((number, *rows.shape[1:])).index_add_(0, keras.ops.cast(owner, "int64"), rows)
    return keras.ops.segment_sum(rows, owner, num_segments=number)


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Any:
    """Returns the tensors one after the other along an axis; a single one as it is, without an operation."""
    return tensors[0] if len(tensors) == 1 else keras.ops.concatenate(list(tensors), axis=axis)


def most_together() -> float:
    """Returns how many elements of several tensors are best copied into one before they are reduced.

    For TensorFlow's processor about as many as a core's own cache takes; elsewhere a call costs more than the copy.
    """
    if keras.backend.backend() != "tensorflow":
        return math.inf
    import tensorflow as tf

    return math.inf if tf.config.list_physical_devices("GPU") else 2**15


def replicated(x: Any) -> Any:
    """Returns the same tensor with a copy on each device under a `keras.distribution`.

    In XLA a sum over segments goes wrong for rows that are split unevenly over devices: rows that only fill up the
    last part are added to the first segment.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return x
    layout = keras.distribution.TensorLayout([None] * len(x.shape), distribution.device_mesh)
    return keras.distribution.distribute_tensor(x, layout)


def as_float(x: Any) -> Any:
    """Casts to float32, unless the tensor is wider."""
    if keras.backend.standardize_dtype(x.dtype) in ("float32", "float64"):
        return x
    return keras.ops.cast(x, "float32")


def widest_float() -> str:
    """Returns the dtype that float64 becomes on this backend: float32 on JAX, unless `jax_enable_x64` is set."""
    if keras.backend.backend() != "jax":
        return "float64"
    return keras.backend.standardize_dtype(keras.ops.convert_to_tensor(np.zeros(())).dtype)
