"""The initializations to compare, by the names that users give them."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Sequence

import keras

from keras_initkit import initializers

DEFAULT = (
    "zeros",
    "random_normal",
    "random_uniform",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "standard_uniform",
    "activation_scaling",
)
_OURS = {
    re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(): name
    for name in initializers.__all__
    if inspect.isclass(getattr(initializers, name))
}


def known_names() -> list[str]:
    """Names of initializers, ours and Keras' own, in snake case."""
    theirs = [n for n, value in vars(keras.initializers).items() if n.islower() and inspect.isclass(value)]
    return sorted({*theirs, *_OURS})


def scheme(name: str, activation: str) -> keras.initializers.Initializer:
    """The initializer of that name, for a kernel that `activation` follows.

    Args:
        name: as Keras takes it (`"he_normal"`, `"HeNormal"`, `"keras_initkit>StandardUniform"`), or one of ours
            in snake case (`"activation_scaling"`).
        activation: given to those of ours that ask for one.

    Raises:
        ValueError: for a name that nobody knows; the message lists near names.
    """
    ours = _OURS.get(name, name.removeprefix("keras_initkit>"))
    if ours in _OURS.values():
        made = getattr(initializers, ours)
        wants_activation = "activation" in inspect.signature(made).parameters
        return made(activation=activation) if wants_activation else made()
    try:
        return keras.initializers.get(name)
    except KeyError as error:
        raise ValueError(
            f"initializers: {name!r} cannot be made from its name, it needs a {error}; leave it out."
        ) from error
    except (ValueError, TypeError) as error:
        near = difflib.get_close_matches(name.lower(), known_names(), n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known_names())}."
        raise ValueError(f"initializers: got {name!r}, which is neither ours nor Keras'. {hint}") from error


def schemes(names: Sequence[str], activation: str) -> dict[str, keras.initializers.Initializer]:
    """Each by its name, in order.

    Raises:
        ValueError: for an empty list or an unknown name.
    """
    if isinstance(names, str) or not names:
        raise ValueError(f"initializers: got {names!r}, expected a list of names such as {list(DEFAULT[3:6])}.")
    return {name: scheme(name, activation) for name in names}
