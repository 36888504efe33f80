"""The registry of schemes."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import keras

from keras_initkit.initializers._catalogue import catalogue
from keras_initkit.initializers._core import PACKAGE
from keras_initkit.initializers._lookup import get

Scheme = Callable[..., None]
_SCHEMES: dict[str, Scheme] = {}


def register_scheme(name: str, *, replace: bool = False) -> Callable[[Scheme], Scheme]:
    """Registers a function as a scheme: `initialize(model, name, **options)` calls `function(plan, **options)`.

    The built-in schemes are registered by it too. The function reads `plan.kernels` and sets weights by
    `plan.assign`; see `Plan`. If it raises, all weights are restored.

    Args:
        name: String. Name of the scheme.
        replace: Boolean. Whether a scheme of this name may be replaced.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        ValueError: If the name is not a string, is the name of an initializer, or is taken by another scheme.

    Example:

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
    if not isinstance(name, str) or _is_initializer(name):
        raise ValueError(f"name: got {name!r}, expected a string that is not the name of an initializer.")

    def register(function: Scheme) -> Scheme:
        if not callable(function):
            raise ValueError(f"function: got {function!r}, expected a function of a plan.")
        if not replace and _SCHEMES.get(name, function) is not function:
            raise ValueError(
                f"name: got {name!r}, which is registered for {_SCHEMES[name]!r}; expected a new name. "
                "Pass replace=True to replace it."
            )
        _SCHEMES[str(name)] = function
        return function

    return register


def scheme_names() -> list[str]:
    """Returns the names of all registered schemes, sorted."""
    return sorted(_SCHEMES)


def find_scheme(scheme: Any) -> Scheme | None:
    """Returns the scheme with that name; `None` for an initializer's name or no string. Other names are errors."""
    if not isinstance(scheme, str):
        return None
    if scheme in _SCHEMES or _is_initializer(scheme):
        return _SCHEMES.get(scheme)
    near = difflib.get_close_matches(scheme, [*_SCHEMES, *_initializer_names()], n=3)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "keras-initkit list shows the initializers."
    raise ValueError(
        f"scheme: got {scheme!r}, expected one of {', '.join(map(repr, scheme_names()))} or an initializer. {hint}"
    )


def _is_initializer(name: str) -> bool:
    try:
        get(name)
    except ValueError:
        return False
    return True


def _initializer_names() -> list[str]:
    """Names for near matches: as in `keras.initializers`, and the registered ones of this package."""
    ours = [f"{PACKAGE}>{entry.name}" for entry in catalogue() if entry.origin == PACKAGE]
    return [*(name for name in dir(keras.initializers) if not name.startswith("_")), *ours]
