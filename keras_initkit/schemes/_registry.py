"""Schemes by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import keras

from keras_initkit.initializers._catalogue import catalogue
from keras_initkit.initializers._core import PACKAGE

Scheme = Callable[..., None]
_SCHEMES: dict[str, Scheme] = {}


def register_scheme(name: str) -> Callable[[Scheme], Scheme]:
    """Makes a function a scheme: `initialize(model, name, **options)` calls `function(plan, **options)`.

    The function sets weights by `plan.assign` and gives a reason for those it passes over by `plan.skip`. Whatever
    it raises, the model's weights are put back as they were.

    Args:
        name: its name; the function registered last under a name counts.

    Raises:
        ValueError: if the name is no text, or that of an initializer.

    >>> import keras_initkit, numpy as np
    >>> @register_scheme("all_equal")
    ... def all_equal(plan, value=1.0):
    ...     for kernel in plan.kernels:
    ...         plan.assign(kernel.variable, np.full(kernel.variable.shape, value))
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> report = keras_initkit.initialize(model, "all_equal", value=3.0)
    >>> report.kernels[0].scale  # 3^2 * 2 inputs
    18.0
    """
    if not isinstance(name, str) or name in _initializer_names():
        raise ValueError(f"name: got {name!r}, expected a text that is not the name of an initializer.")

    def register(function: Scheme) -> Scheme:
        _SCHEMES[name] = function
        return function

    return register


def scheme_names() -> list[str]:
    """Names of the registered schemes."""
    return sorted(_SCHEMES)


def find(scheme: Any) -> Scheme | None:
    """The scheme of that name; `None` if it is no name of a scheme, but some initializer.

    Raises:
        ValueError: for a string that is neither a scheme's nor an initializer's name; it lists near names.
    """
    if not isinstance(scheme, str):
        return None
    if scheme in _SCHEMES:
        return _SCHEMES[scheme]
    try:
        keras.initializers.get(scheme)
    except ValueError as error:
        near = difflib.get_close_matches(scheme, [*_SCHEMES, *_initializer_names()], n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "keras-initkit list shows the initializers."
        raise ValueError(
            f"scheme: got {scheme!r}, expected one of {', '.join(map(repr, scheme_names()))} or an initializer. {hint}"
        ) from error
    return None


def _initializer_names() -> list[str]:
    """Names that Keras' own initializers go by, and ours."""
    helpers = ("get", "serialize", "deserialize")
    keras_own = [n for n in dir(keras.initializers) if not n.startswith("_") and n not in helpers]
    return keras_own + [f"{PACKAGE}>{entry.name}" for entry in catalogue() if entry.origin == PACKAGE]
