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
_CLASSES = [name for name in initializers.__all__ if inspect.isclass(getattr(initializers, name))]
_OURS = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(): name for name in _CLASSES}


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
        ValueError: for a name that nobody knows (the message lists near names), one of a bias, or one that does
            not go with this activation.
    """
    ours = _OURS.get(name, name.removeprefix("keras_initkit>"))
    if ours in _CLASSES:
        if ours.endswith("Bias"):
            raise _unfit(name, "it is for biases")
        made = getattr(initializers, ours)
        if "activation" not in inspect.signature(made).parameters:
            return made()
        try:
            return made(activation=activation)
        except ValueError as error:
            raise ValueError(
                f"initializers: {name} does not go with the activation {activation!r} ({error}) "
                "Leave it out, or give another activation."
            ) from error
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


def schemes(
    names: Sequence[str], activation: str, shapes: Sequence[tuple[int, int]] = ((3, 5),)
) -> dict[str, keras.initializers.Initializer]:
    """Each by its name, in order; each has drawn a kernel of every shape, so that no training begins in vain.

    Raises:
        ValueError: for an empty list, an unknown name, or one that cannot draw a Dense kernel of these shapes.
    """
    if isinstance(names, str) or not names:
        raise ValueError(f"initializers: got {names!r}, expected a list of names such as {list(DEFAULT[3:6])}.")
    made = {name: scheme(name, activation) for name in names}
    for name, initializer in made.items():
        for shape in shapes:
            try:
                initializer(shape)
            except Exception as error:  # of whatever kind: some are the user's own, and Keras' raise several
                raise _unfit(name, f"{shape}: {str(error).rstrip('.')}") from error
    return made


def _unfit(name: str, why: str) -> ValueError:
    return ValueError(
        f"initializers: got {name!r}, which cannot draw the kernel of a Dense layer ({why}). "
        "Leave it out, or give one for kernels (inputs, units) of any size, such as 'he_normal'."
    )
