"""Fresh weights for a layer, as its config or its `build` draws them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_initkit.schemes.draw._kernel_draw import draw_plain
from keras_initkit.structure._sublayers import walk_layers
from keras_initkit.structure._weights import own_weights


def fresh_weights(layer: keras.layers.Layer) -> list[np.ndarray]:
    """Returns new values for `layer.weights`, in their order, drawn as its config says.

    A twin of the layer is made from its configuration and built for the same input shape, so whatever building
    does (a forget-gate bias, a moving variance of one) is done again.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about a layer that the user has not made
            twin = type(layer).from_config(layer.get_config())
            twin.build_from_config(layer.get_build_config())
    except Exception as error:  # of any kind: a user's own constructor
        reason = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
        raise ValueError(f"{type(layer).__name__} cannot be re-created from its config: {reason}") from error
    shapes, wanted = ([tuple(w.shape) for w in each.weights] for each in (twin, layer))
    if shapes != wanted:
        raise ValueError(
            f"{type(layer).__name__} re-created from its config has weights of shapes {shapes}, expected {wanted}"
        )
    return [np.array(keras.ops.convert_to_numpy(weight.value)) for weight in twin.weights]


def redrawn_weights(layer: keras.layers.Layer, seed_of: Callable[[keras.Variable], int]) -> dict[int, np.ndarray]:
    """Returns new values for the weights that a layer makes itself, by their identity, each from its initializer.

    For layers that cannot be made from their config. The layer's `build` runs once more, and each `add_weight` in it
    returns the weight that is there. Weights made elsewhere, or in another way, have no entry.
    """
    waiting = own_weights(layer)
    found: dict[int, np.ndarray] = {}

    def add_weight(shape: Any = None, initializer: Any = None, *args: Any, name: Any = None, **options: Any) -> Any:
        wanted = () if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
        place = next(n for n, w in enumerate(waiting) if tuple(w.shape) == wanted and name in (None, w.name))
        weight = waiting.pop(place)
        is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(weight.dtype))
        drawn = keras.initializers.get(initializer or ("glorot_uniform" if is_float else "zeros"))
        found[id(weight)] = draw_plain(drawn, wanted, weight.dtype, seed_of(weight))
        return weight

    with contextlib.suppress(Exception), _rebuilding(layer, add_weight):  # of any kind: a user's own `build`
        layer.build_from_config(layer.get_build_config())
    return found


@contextlib.contextmanager
def _rebuilding(layer: keras.layers.Layer, add_weight: Callable) -> Iterator[None]:
    """Has a layer's `add_weight` replaced and its parts' `build` do nothing; restores the layer's attributes."""
    parts = [part for _, part in walk_layers(layer)][1:]
    before = {id(each): (each, dict(vars(each))) for each in (layer, *parts)}
    held = [(v, list(v)) for _, attributes in before.values() for v in attributes.values() if type(v) is list]
    try:
        vars(layer)["add_weight"] = add_weight
        for part in parts:
            vars(part)["build"] = lambda *args, **kwargs: None
        yield
    finally:
        for each, attributes in before.values():
            vars(each).clear()
            vars(each).update(attributes)
        for value, elements in held:
            value[:] = elements
