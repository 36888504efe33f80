"""The scalar whose gradient a probe takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_initkit.capture._random_state import replaced


@contextlib.contextmanager
def training_loss(model: keras.Model, loss: Any) -> Iterator[None]:
    """`model.compute_loss` computes with the loss of `compile`, or with `loss`, and leaves nothing behind in either.

    Keras' own `CompileLoss` matches losses with outputs; it is built when it is first called, so another like it is.
    """
    # Private, since no public name runs the loss of `compile`: test_probe_state.py guards these.
    from keras.src.trainers.compile_utils import CompileLoss

    if loss is not None:
        compiled = CompileLoss(loss, output_names=getattr(model, "output_names", None))
    else:
        like = model._compile_loss
        compiled = CompileLoss(like._user_loss, like._user_loss_weights, output_names=like.output_names)
    with replaced(model, "_compile_loss", compiled):
        yield


def is_compiled_with_loss(model: keras.Model) -> bool:
    """Whether training would have a loss of its labels."""
    return getattr(model, "_compile_loss", None) is not None


def random_projection(outputs: list[Any], generator: np.random.Generator) -> Any:
    """The sum of all outputs' elements, each times an N(0, 1) number: its gradients are these numbers."""
    total = keras.ops.zeros((), "float32")
    for output in outputs:
        dtype = "float64" if keras.backend.standardize_dtype(output.dtype) == "float64" else "float32"
        weights = generator.standard_normal(tuple(output.shape)).astype(dtype)
        products = keras.ops.cast(output, dtype) * keras.ops.convert_to_tensor(weights)
        total = total + keras.ops.cast(keras.ops.sum(products), "float32")
    return total


def loss_scale(model: keras.Model) -> float:
    """By what mixed precision multiplies the loss, so that float16 holds its gradients; 1 where it does not."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 1.0
    return float(keras.ops.convert_to_numpy(optimizer.scale_loss(keras.ops.ones(()))))
