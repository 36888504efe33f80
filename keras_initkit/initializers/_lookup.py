"""Initializers from every form that one can be given in."""

from __future__ import annotations

import difflib
import inspect
import re
from typing import Any

import keras
import numpy as np

from keras_initkit.initializers._catalogue import catalogue
from keras_initkit.initializers._core import PACKAGE


def get(identifier: Any) -> Any:
    """Returns the initializer for a name, a configuration, a class or an instance.

    Unlike `keras.initializers.get`, it knows the initializers of this package by their plain names.

    Args:
        identifier: String, dict, class, instance or array. A name is that of a class of Keras or of this package
            (`"HeNormal"`), its snake case (`"he_normal"`, `"activation_scaling"`) or a registered name
            (`"keras_initkit>ActivationScaling"`). A dict is what `keras.initializers.serialize` returns. A class is
            called without arguments. An array gives a `Constant`.

    Returns:
        The initializer: a new one for a name, a dict or a class; an instance or a function as it is.

    Raises:
        ValueError: If there is no such initializer, or if it cannot be made without arguments.

    Example:

    >>> from keras_initkit import initializers
    >>> initializers.get("activation_scaling").activation
    'relu'
    >>> initializers.get("icnrr")
    Traceback (most recent call last):
    ...
    ValueError: initializer: got 'icnrr', expected the name of an initializer. Did you mean 'icnr'?
    """
    if isinstance(identifier, str):
        ours = {form: entry for entry in catalogue() for form in _forms(entry.name)}
        known = ours.get(identifier)
        if known is None:
            name = identifier
        else:  # by its class, since Keras raises a KeyError for "constant"
            name = f"{PACKAGE}>{known.name}" if known.origin == PACKAGE else getattr(keras.initializers, known.name)
        near = difflib.get_close_matches(identifier.rpartition(">")[2], ours, n=2)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else " `keras-initkit list` shows them."
        return _resolved(identifier, name, "the name of an initializer", hint)
    if inspect.isclass(identifier):
        return _resolved(identifier, identifier, "an initializer class that needs no arguments", " Give an instance.")
    if isinstance(identifier, np.ndarray):
        return keras.initializers.Constant(identifier)  # Keras makes a local function of it, which no file keeps
    return _resolved(identifier, identifier, "an initializer, its name (such as 'he_normal'), class or configuration")


def _forms(name: str) -> tuple[str, str]:
    return name, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _resolved(received: Any, identifier: Any, expected: str, hint: str = "") -> Any:
    error, found = None, None
    try:
        found = keras.initializers.get(identifier)
    except (AttributeError, KeyError, TypeError, ValueError) as reason:  # all of which Keras raises
        error = reason
    abstract = type(found).__call__ is keras.initializers.Initializer.__call__ if callable(found) else True
    if not (abstract or isinstance(found, keras.Layer)):
        return found
    told = "" if error is None or isinstance(identifier, str) else f" ({error})"
    raise ValueError(f"initializer: got {received!r}, expected {expected}.{hint}{told}") from error
