"""The optimizers of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keras_initkit.structure._sublayers import walk_layers

_DEPTH = 3  # of lists and dictionaries in one another


def find_optimizers(model: keras.Model, types: type | tuple[type, ...] = keras.optimizers.Optimizer) -> list[Any]:
    """Returns the optimizer of `compile` and those that a model with its own `train_step` keeps, each once.

    They may be attributes of the model or of a part of it, or stand in lists and dictionaries there.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.both = {"maker": keras.optimizers.SGD(0.1), "judge": [keras.optimizers.Adam()]}
    >>> [type(optimizer).__name__ for optimizer in find_optimizers(model)]
    ['SGD', 'Adam']
    """
    found = list(_held(getattr(model, "optimizer", None), types, 0))
    for _, holder in walk_layers(model):
        # Keras' own layers have none, and are most.
        if isinstance(holder, keras.Model) or not type(holder).__module__.startswith("keras."):
            found += [each for value in vars(holder).values() for each in _held(value, types, _DEPTH)]
    return list({id(each): each for each in found}.values())


def _held(value: Any, types: type | tuple[type, ...], depth: int) -> Iterator[Any]:
    if isinstance(value, types):
        yield value
    elif depth and isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _held(each, types, depth - 1)
