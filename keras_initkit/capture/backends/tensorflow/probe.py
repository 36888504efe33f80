"""Values and gradients of a model's tensors in one eager pass, on the TensorFlow backend."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_initkit._compat import (
    copy_keras_mask,
    keras_logits,
    set_keras_logits,
    tensorflow_convolution_replaced,
    tensorflow_functions_eager,
    tensorflow_identity,
)


def is_tensor(x: Any) -> bool:
    """Whether `x` is a dense tensor."""
    return isinstance(x, tf.Tensor)


def observed(tensor: tf.Tensor, on_value: Callable, on_gradient: Callable) -> tf.Tensor:
    """`tensor` itself for the model; see `probe_backend`."""
    if tf.is_symbolic_tensor(tensor):
        on_value(None)
        return tensor

    def backward(gradient: Any) -> list[tf.Tensor]:
        gradient = tf.convert_to_tensor(gradient)  # that of a gather is sparse
        on_gradient(None if tf.is_symbolic_tensor(gradient) else gradient.numpy())
        return [gradient]

    on_value(tensor.numpy())
    result = tensorflow_identity(tensor, backward)
    copy_keras_mask(tensor, result)
    if keras_logits(tensor) is not None:  # those before a softmax, from which a loss is computed
        set_keras_logits(result, keras_logits(tensor))
    return result


def differentiate(
    function: Callable[[list[tf.Tensor]], tf.Tensor], inputs: Sequence[tf.Tensor], variables: Sequence[keras.Variable]
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """The scalar `function(inputs)`, and its gradients with respect to the variables."""
    inputs = list(inputs)
    sources = [variable.value for variable in variables]
    floats = [x for x in inputs if x.dtype.is_floating]  # so that their gradients are read on the way
    with tf.GradientTape() as tape:
        tape.watch(floats)
        # Regularizers look for their weight in the scope.
        values = [(variable, tf.convert_to_tensor(source)) for variable, source in zip(variables, sources, strict=True)]
        with keras.StatelessScope(values, collect_losses=True):
            result = function(inputs)
    gradients = tape.gradient(result, [*sources, *floats])[: len(sources)]
    # An embedding's gradient is sparse: rows that no example used have a gradient of zero.
    return result.numpy(), [None if g is None else tf.convert_to_tensor(g).numpy() for g in gradients]


def no_gradients() -> contextlib.AbstractContextManager:
    """Nothing is recorded for a backward pass that nobody asked for."""
    return contextlib.nullcontext()


@contextlib.contextmanager
def undisturbed(model: keras.Model) -> Iterator[None]:
    """Runs functions that the model has made of its parts eagerly: readable, and none keeps what was traced here."""
    with tensorflow_convolution_replaced(_with_groups_compiled), tensorflow_functions_eager(True):
        yield


def _with_groups_compiled(convolve: Callable) -> Callable:
    """Returns the same convolution, but what is in groups is computed by XLA.

    On a CPU, TensorFlow's own kernels have no gradient of it. Keras compiles it too, where functions do not run
    eagerly.
    """

    def run(inputs: Any, kernel: Any, *args: Any, **kwargs: Any) -> Any:
        named = inspect.signature(convolve).bind(inputs, kernel, *args, **kwargs).arguments
        first = (named.get("data_format") or keras.config.image_data_format()) == "channels_first"
        channels = inputs.shape[1 if first else -1]
        if not tf.executing_eagerly() or channels == kernel.shape[-2]:
            return convolve(inputs, kernel, *args, **kwargs)
        compiled = tf.function(lambda x, w: convolve(x, w, *args, **kwargs), autograph=False, jit_compile=True)
        with tensorflow_functions_eager(False):
            return compiled(tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel))

    return run
