"""The layers of a model by their path in it."""

from __future__ import annotations

import keras

from keras_initkit.structure.sublayers import sublayers

# Their parts run inside loops or on slices of the input, so they are seen from outside, as one layer.
_OPAQUE = (keras.layers.RNN, keras.layers.TimeDistributed)


def weighted_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Layers that hold weights of their own, by their path inside `model`.

    A path joins the layers' names by slashes, without the model's own name, whose number changes from run
    to run: `"encoder/dense_1"`. A composite layer that only holds other layers is not listed, they are;
    recurrent and time-distributed layers count as one. A layer that is used in several places has the
    first of its paths. Weights that belong to the model itself are listed under `"model"`.

    Args:
        model: a built model.
    """
    found: dict[str, keras.layers.Layer] = {}
    seen: set[int] = set()

    def visit(layer: keras.layers.Layer, path: str) -> None:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        parts = [] if isinstance(layer, _OPAQUE) else sublayers(layer)
        inside = {id(weight) for part in parts for weight in part.weights}
        if any(id(weight) not in inside for weight in layer.weights):
            found[_unused(path or "model", found)] = layer
        for part in parts:
            visit(part, f"{path}/{part.name}" if path else part.name)

    visit(model, "")
    return found


def _unused(path: str, found: dict[str, keras.layers.Layer]) -> str:
    """`path`, numbered where two layers of one parent bear one name."""
    number, candidate = 1, path
    while candidate in found:
        candidate, number = f"{path}_{number}", number + 1
    return candidate
