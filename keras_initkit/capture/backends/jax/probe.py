"""Values and gradients of a model's tensors in one eager pass, on the JAX backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras
import numpy as np

from keras_initkit._compat import copy_keras_mask


def is_tensor(x: Any) -> bool:
    """Whether `x` is a dense array, or stands for one."""
    return isinstance(x, jax.Array)


def observed(tensor: jax.Array, on_value: Callable, on_gradient: Callable) -> jax.Array:
    """`tensor` itself for the model; see `probe_backend`.

    Run eagerly, the rules of a custom derivative see arrays, where the model sees tracers.
    """

    def host(x: jax.Array) -> np.ndarray | None:
        return None if isinstance(x, jax.core.Tracer) else np.asarray(x)

    return tapped(tensor, lambda x: on_value(host(x)), lambda gradient: on_gradient(host(gradient)))


def tapped(tensor: jax.Array, on_value: Callable, on_gradient: Callable) -> jax.Array:
    """`tensor` itself for the model; `on_value` and `on_gradient` are called with what the rules are given."""

    @jax.custom_vjp
    def identity(x: jax.Array) -> jax.Array:  # of what depends on no input and on no weight
        on_value(x)
        return x

    def forward(x: jax.Array) -> tuple[jax.Array, None]:
        on_value(x)
        return x, None

    def backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
        on_gradient(gradient)
        return (gradient,)

    identity.defvjp(forward, backward)
    result = identity(tensor)
    if result is not tensor:
        copy_keras_mask(tensor, result)
    return result


def differentiate(
    function: Callable[[list[jax.Array]], jax.Array], inputs: Sequence[jax.Array], variables: Sequence[keras.Variable]
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """The scalar `function(inputs)`, and its gradients with respect to the variables."""
    inputs = list(inputs)
    is_float = [jax.numpy.issubdtype(x.dtype, jax.numpy.floating) for x in inputs]

    def of_floats(values: list[jax.Array], floats: list[jax.Array]) -> jax.Array:
        rest = iter(floats)
        merged = [next(rest) if chosen else x for x, chosen in zip(inputs, is_float, strict=True)]
        scope = keras.StatelessScope(list(zip(variables, values, strict=True)), collect_losses=True)
        with scope:
            return function(merged)

    floats = [x for x, chosen in zip(inputs, is_float, strict=True) if chosen]
    result, backward = jax.vjp(of_floats, [variable.value for variable in variables], floats)
    gradients, _ = backward(jax.numpy.ones_like(result))
    return np.asarray(result), [np.asarray(gradient) for gradient in gradients]


def no_gradients() -> contextlib.AbstractContextManager:
    """Nothing is recorded for a backward pass that nobody asked for."""
    return contextlib.nullcontext()


@contextlib.contextmanager
def undisturbed(model: keras.Model) -> Iterator[None]:
    """JAX has no state, and no function of a model runs eagerly that would not do so anyway."""
    yield
