"""The Euclidean norm in one pass over memory: the square of a sum of squares that no tensor of squares is made for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras

_UNDER_XLA: ContextVar[bool] = ContextVar("under_xla", default=False)


@contextlib.contextmanager
def under_xla(compiled: bool) -> Iterator[None]:
    """What is traced here on TensorFlow is compiled by XLA, which has no such kernel but fuses what it consists of."""
    token = _UNDER_XLA.set(bool(compiled))
    try:
        yield
    finally:
        _UNDER_XLA.reset(token)


def norm(x: Any, axis: int | None = None) -> Any:
    """Square root of the sum of squares over an axis, or over all; infinite where that overflows.

    `keras.ops.norm` takes four times as long on TensorFlow, and the product of a vector with itself seven times.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow" and not _UNDER_XLA.get():
        import tensorflow as tf

        return tf.math.reduce_euclidean_norm(x, axis)
    if backend == "torch":
        import torch

        return torch.linalg.vector_norm(x, dim=axis)
    return keras.ops.sqrt(keras.ops.sum(keras.ops.square(x), axis=axis))  # one loop once XLA has compiled it
