"""Activations as functions of float64 arrays, on any backend and in any context."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from keras_initkit._compat import describe_error

Activation = str | Callable | None


class NotElementwiseError(ValueError):
    """Raised for a function whose results depend on more than one element, such as softmax."""


def activation_names() -> list[str]:
    """Lists the names that `keras.activations.get` knows."""
    namespace = vars(keras.activations)
    helpers = {"get", "serialize", "deserialize"}
    return sorted(n for n, f in namespace.items() if inspect.isfunction(f) and n not in helpers)


def resolve(activation: Activation) -> Callable:
    """Returns the callable behind a Keras activation name, function, layer or plain callable; `None` is linear."""
    if inspect.isclass(activation):
        raise ValueError(f"activation: got the class {activation!r}, expected an instance: {activation.__name__}().")
    if callable(activation):
        return activation
    if activation is not None and not isinstance(activation, str | dict):
        raise ValueError(
            f"activation: got {activation!r}, expected the name of a Keras activation, a callable or None."
        )
    try:
        return keras.activations.get(activation)
    except (ValueError, TypeError) as error:
        near = difflib.get_close_matches(str(activation), activation_names(), n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(activation_names())}."
        raise ValueError(f"activation: Keras knows none called {activation!r}. {hint}") from error


def keras_name(function: Callable) -> str | None:
    """Returns the name of one of Keras' own activation functions; None for a user's function of the same name.

    A function that computes the same as one of them, as a layer does, names it in `keras_function`: the closed forms
    are its own too.
    """
    function = getattr(function, "keras_function", function)
    name = getattr(function, "__name__", "")
    return name if getattr(keras.activations, name or "get", None) is function else None


def evaluate(function: Callable, z: np.ndarray) -> np.ndarray:
    """Returns `function` of a float64 vector, as float64, or as float32 where the backend or function has no more.

    It runs in a thread of its own: tracing contexts of TensorFlow, JAX and Keras belong to a thread, so an
    initializer that is built while a model is traced still gets numbers, not symbols.
    """
    if z.ndim != 1:
        raise ValueError(f"z: got shape {z.shape}, expected a vector.")

    def run() -> tuple[np.ndarray, np.ndarray]:
        def on(values):  # a batch of one: what softmax and its like take for one example
            tensor = keras.ops.convert_to_tensor(values[None, :])
            result = np.asarray(keras.ops.convert_to_numpy(call(tensor)))
            return result if result.dtype in ("float32", "float64") else result.astype("float32")

        return on(z), on(z[::2])

    call = _unchanging(function) if isinstance(function, keras.Layer) else function
    name = getattr(function, "__name__", repr(function))
    try:
        with ThreadPoolExecutor(max_workers=1) as thread:
            whole, half = thread.submit(run).result()
    except TypeError as error:
        raise ValueError(
            f"activation: {name} cannot be called with a tensor alone ({error}). "
            "Bind its other arguments first, such as lambda x: keras.activations.threshold(x, 0.5, 0.0)."
        ) from error
    except Exception as error:  # whatever a layer raises that takes other shapes
        if not isinstance(function, keras.Layer):
            raise
        raise ValueError(
            f"activation: got a layer of class {type(function).__name__} that cannot be applied to numbers one by one "
            f"({describe_error(error)}), expected an elementwise function such as 'relu'."
        ) from error
    if (
        whole.shape != (1, z.size)
        or half.shape != (1, z[::2].size)
        or not np.allclose(whole[:, ::2], half, rtol=1e-5, atol=1e-30, equal_nan=True)
    ):
        raise NotElementwiseError(
            f"activation: {name} does not act on each element by itself, so it has no gain. "
            "Expected an elementwise function such as 'relu'; for an output layer under softmax use 'linear'."
        )
    return whole[0]


def _unchanging(layer: keras.Layer) -> Callable:
    """A layer as a function that neither builds nor changes it: a layer that is not built is copied for each call."""
    if isinstance(layer, keras.layers.Activation):
        inner = layer.activation
        return _unchanging(inner) if isinstance(inner, keras.Layer) else inner
    if layer.built:
        return lambda x: layer.call(keras.ops.cast(x, layer.variable_dtype))
    return lambda x: layer.from_config(layer.get_config())(x)


def activation_range(activation: Activation) -> tuple[float, float]:
    """Returns the limits of an activation as its input goes to minus and plus infinity; infinite where it has none.

    Example:

    >>> activation_range("tanh")
    (-1.0, 1.0)
    >>> activation_range("relu")
    (0.0, inf)
    """
    far = np.array([-1e7, -1e6, 1e6, 1e7])
    values = evaluate(resolve(activation), far)

    def limit(near: float, farther: float) -> float:
        if farther == near or abs(farther - near) <= 1e-5:
            return round(float(farther), 6) + 0.0
        return float(np.copysign(np.inf, farther))

    low, high = sorted([limit(values[1], values[0]), limit(values[2], values[3])])
    return low, high
