"""The scalar whose gradient a probe takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_initkit._compat import fresh_compile_loss
from keras_initkit.capture._hooks import replaced


@contextlib.contextmanager
def training_loss(model: keras.Model, loss: Any) -> Iterator[None]:
    """Has `model.compute_loss` use the loss of `compile`, or `loss`, and leaves nothing behind in either."""
    with replaced(model, *fresh_compile_loss(model, loss)):
        yield


def random_projection(outputs: list[Any], generator: np.random.Generator) -> Any:
    """Returns the sum of all outputs' elements, each times an N(0, 1) number: its gradients are these numbers."""
    total = keras.ops.zeros((), "float32")
    for output in outputs:
        dtype = "float64" if keras.backend.standardize_dtype(output.dtype) == "float64" else "float32"
        weights = generator.standard_normal(tuple(output.shape)).astype(dtype)
        products = keras.ops.cast(output, dtype) * keras.ops.convert_to_tensor(weights)
        total = total + keras.ops.cast(keras.ops.sum(products), "float32")
    return total


def loss_scale(model: keras.Model) -> float:
    """Returns the factor by which mixed precision multiplies the loss, for gradients to fit float16; 1 without it."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 1.0
    return float(keras.ops.convert_to_numpy(optimizer.scale_loss(keras.ops.ones(()))))
