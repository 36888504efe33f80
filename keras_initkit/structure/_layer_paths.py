"""The layers of a model by their path in it."""

from __future__ import annotations

import keras

from keras_initkit.structure._sublayers import sublayers, unused, walk_layers
from keras_initkit.structure._weights import own_weights


def named_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns every layer of a model by its path inside it; the path of the model itself is `"model"` (if free).

    A path joins the layers' names by slashes, without the model's own name, whose number changes from run
    to run: `"encoder/dense_1"`. Composite layers stand before their parts; recurrent and time-distributed
    layers count as one. A layer that is used in several places has the first of its paths.
    """
    found: dict[str, keras.layers.Layer] = {}
    top = unused("model", {part.name: part for part in sublayers(model, into_loops=False)})
    for path, layer in walk_layers(model, into_loops=False):
        found[unused(path or top, found)] = layer
    return found


def weighted_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns those of `named_layers` that hold weights themselves.

    A composite layer that only holds other layers is not listed, they are. Weights that belong to the model
    itself are listed under `"model"`.

    Args:
        model: A built model.
    """
    return {path: layer for path, layer in named_layers(model).items() if own_weights(layer)}


def held_weights(model: keras.Model) -> list[tuple[str, keras.layers.Layer, keras.Variable]]:
    """Returns every weight of a model once, after the path of the innermost layer that holds it and that layer."""
    found: dict[int, tuple[str, keras.layers.Layer, keras.Variable]] = {}
    for path, layer in named_layers(model).items():
        for weight in own_weights(layer):
            found.setdefault(id(weight), (path, layer, weight))
    return list(found.values())
