"""The layers that a layer is made of."""

from __future__ import annotations

import keras


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """The direct sublayers of `layer`, each once, in the order in which Keras tracks them.

    Whatever Keras itself finds: attributes and lists of layers, a wrapper's layer, an RNN's cell, the
    projections inside an attention layer, the layers of a model.

    >>> [sublayer.name for sublayer in sublayers(keras.Sequential([keras.layers.Dense(2, name="head")]))]
    ['head']
    """
    # Keras shows the sublayers of a model (`Model.layers`) but not those of a layer, a MultiHeadAttention's
    # say. This private list is what `Model.layers` and `Layer.weights` read; test_sublayers.py guards it.
    tracked = layer._layers
    return list({id(sublayer): sublayer for sublayer in tracked}.values())
