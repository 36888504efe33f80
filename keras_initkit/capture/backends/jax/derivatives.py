"""Derivatives of derivatives, on the JAX backend."""

from __future__ import annotations

from collections.abc import Callable

import jax


def value_and_gradients(function: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, list[jax.Array]]]:
    """See `derivatives_backend`."""
    return jax.value_and_grad(function)


def compiled(function: Callable) -> Callable:
    """The function compiled for each set of shapes."""
    return jax.jit(function)


def lacks_derivative(error: Exception) -> bool:
    """Whether an error says that some operation has no derivative."""
    text = str(error).lower()
    return isinstance(error, NotImplementedError | ValueError | TypeError) and (
        "differentiation" in text or "jvp" in text or "vjp" in text
    )
