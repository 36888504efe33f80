"""Derivatives of derivatives, on the TensorFlow backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def value_and_gradients(function: Callable[..., tf.Tensor]) -> Callable[..., tuple[tf.Tensor, list[tf.Tensor]]]:
    """See `derivatives_backend`."""

    def differentiated(values: list[tf.Tensor], *rest: Any) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = function(values, *rest)
        gradients = tape.gradient(result, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return result, [tf.convert_to_tensor(gradient) for gradient in gradients]  # that of a gather is sparse

    return differentiated


def compiled(function: Callable) -> Callable:
    """The function as one graph for each set of shapes."""
    return tf.function(function, autograph=False)


def lacks_derivative(error: Exception) -> bool:
    """Whether an error says that some operation has no derivative."""
    return isinstance(error, LookupError) and "gradient" in str(error).lower()
