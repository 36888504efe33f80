"""The layers directly inside a layer, as Keras itself tracks them."""

from __future__ import annotations

import keras


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Direct sublayers of any layer: of a model, a wrapper, attention, or a user's own.

    Keras has no public list of them but for models (`model.layers`), and a composite layer's are what its
    users most want to see; `_layers` is the one private name for it, and it stands here alone.
    """
    return [part for part in layer._layers if isinstance(part, keras.layers.Layer)]
