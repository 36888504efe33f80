"""Schemes by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import keras

Scheme = Callable[..., None]
_SCHEMES: dict[str, Scheme] = {}


def register_scheme(name: str) -> Callable[[Scheme], Scheme]:
    """Makes a function a scheme: `initialize(model, name, **options)` calls `function(plan, **options)`.

    The function sets weights by `plan.assign` and gives a reason for those it passes over by `plan.skip`. Whatever
    it raises, the model's weights are put back as they were.

    >>> @register_scheme("ones")
    ... def ones(plan, value=1.0):
    ...     for kernel in plan.kernels:
    ...         plan.assign(kernel.variable, np.full(kernel.variable.shape, value))
    """

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
        initializers = [n for n in dir(keras.initializers) if n[0].islower() and n not in ("get", "serialize")]
        near = difflib.get_close_matches(scheme, [*_SCHEMES, *initializers], n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "keras-initkit list shows the initializers."
        raise ValueError(
            f"scheme: got {scheme!r}, expected one of {', '.join(map(repr, scheme_names()))} or an initializer. {hint}"
        ) from error
    return None
