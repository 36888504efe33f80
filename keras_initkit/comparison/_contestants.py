"""The initializers to compare, and the names that they have in tables, figures and logs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_initkit.initializers._lookup import get

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


@dataclass(frozen=True)
class Contestant:
    """An initializer in a comparison, by its name in tables, figures and logs; copies of it draw the kernels.

    `follows_activation` says whether a copy's `activation` is that of its layer: of what the user gave by name or
    class, not of an instance or a configuration, which have one already.
    """

    name: str
    initializer: Any
    follows_activation: bool

    def copy(self, activation: str) -> Any:
        """Returns a copy for a layer with this activation; its seed is its own, so no two layers draw the same."""
        if not isinstance(self.initializer, keras.initializers.Initializer):
            return self.initializer  # a function
        config = self.initializer.get_config()
        config = {**config, "seed": None} if "seed" in config else config
        if self.follows_activation:
            config["activation"] = activation
        try:
            return type(self.initializer).from_config(config)
        except Exception as error:  # a user's own class may raise anything
            if self.follows_activation:
                problem, remedy = f"cannot be used with the activation {activation!r}", ", or give another activation"
            else:
                problem, remedy = "cannot be copied from its get_config()", ""
            raise ValueError(f"initializers: {self.name} {problem} ({error}) Leave it out{remedy}.") from error


def find_contestants(initializers: Iterable[Any]) -> list[Contestant]:
    """Returns a contestant for each initializer that `initializers.get` takes, in order; repeated names count once."""
    listed = isinstance(initializers, Iterable) and not isinstance(initializers, (str, dict))
    given = list(initializers) if listed else []
    if not given:
        raise ValueError(
            f"initializers: got {initializers!r}, expected a list of initializers such as {list(DEFAULT[3:6])}."
        )
    found: dict[str, Contestant] = {}
    for identifier in given:
        if isinstance(identifier, str) and identifier in found:
            continue
        try:
            made = get(identifier)
        except ValueError as error:
            raise ValueError(f"initializers: {str(error).removeprefix('initializer: ')}") from error
        name = identifier if isinstance(identifier, str) else _unique(_describe(made), found)
        by_default = isinstance(identifier, (str, type)) and "activation" in inspect.signature(type(made)).parameters
        found[name] = Contestant(name, made, by_default)
    return list(found.values())


def check_contestants(
    contestants: Iterable[Contestant], activation: str, shapes: Sequence[tuple[int, int]] = ((3, 5),)
) -> None:
    """Has each draw a kernel of every shape `(inputs, units)`, since an error after hours of training is too late."""
    for contestant in contestants:
        if type(contestant.initializer).__name__.endswith("Bias"):  # they would draw, of any shape
            raise _unfit(contestant.name, "it is for biases")
        copy = contestant.copy(activation)
        for shape in shapes:
            try:
                copy(shape)
            except Exception as error:  # a user's own class may raise anything
                raise _unfit(contestant.name, f"{shape}: {str(error).rstrip('.')}") from error


def _describe(initializer: Any) -> str:
    """A class name with the arguments that are not the default ones; it can name a directory."""
    if not isinstance(initializer, keras.initializers.Initializer):
        text = getattr(initializer, "__name__", type(initializer).__name__)
    else:
        defaults = {name: each.default for name, each in inspect.signature(type(initializer)).parameters.items()}
        config = {name: value for name, value in initializer.get_config().items() if name != "seed"}
        given = [f"{name}={value}" for name, value in config.items() if repr(value) != repr(defaults.get(name))]
        text = type(initializer).__name__ + (f"({', '.join(given)})" if given else "")
    return re.sub(r"[^\w.,=()+ -]+", "_", text)[:60]


def _unique(name: str, taken: Iterable[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number, unique = number + 1, f"{name} {number + 1}"
    return unique


def _unfit(name: str, why: str) -> ValueError:
    return ValueError(
        f"initializers: got {name!r}, which cannot draw the kernel of a Dense layer ({why}). "
        "Leave it out, or give one for kernels (inputs, units) of any size, such as 'he_normal'."
    )
