"""The layers of a model by their path in it."""

from __future__ import annotations

import keras

from keras_initkit.structure._layer_kinds import is_opaque
from keras_initkit.structure._sublayers import sublayers


def named_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Every layer of a model, by its path inside `model`; the model itself is `"model"` (if no part of it is).

    A path joins the layers' names by slashes, without the model's own name, whose number changes from run
    to run: `"encoder/dense_1"`. Composite layers stand before their parts; recurrent and time-distributed
    layers count as one. A layer that is used in several places has the first of its paths.
    """
    found: dict[str, keras.layers.Layer] = {}
    seen: set[int] = set()

    def visit(layer: keras.layers.Layer, path: str) -> None:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        found[_unused(path, found)] = layer
        for part in parts(layer):
            visit(part, f"{path}/{part.name}" if layer is not model else part.name)

    visit(model, _unused("model", {part.name: part for part in parts(model)}))
    return found


def parts(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The sublayers of a composite layer, none of one that is seen as a whole."""
    return [] if is_opaque(layer) else sublayers(layer)


def weighted_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Those of `named_layers` that hold weights of their own.

    A composite layer that only holds other layers is not listed, they are. Weights that belong to the model
    itself are listed under `"model"`.

    Args:
        model: a built model.
    """
    return {path: layer for path, layer in named_layers(model).items() if own_weights(layer)}


def own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """A layer's weights without those of its parts, which stand under paths of their own."""
    inside = {id(weight) for part in parts(layer) for weight in part.weights}
    return [weight for weight in layer.weights if id(weight) not in inside]


def _unused(path: str, found: dict[str, keras.layers.Layer]) -> str:
    """`path`, numbered where two layers of one parent bear one name."""
    number, candidate = 1, path
    while candidate in found:
        candidate, number = f"{path}_{number}", number + 1
    return candidate
