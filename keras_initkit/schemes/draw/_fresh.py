"""What a layer's weights would be if it were made anew."""

from __future__ import annotations

import keras
import numpy as np


def fresh_weights(layer: keras.layers.Layer) -> list[np.ndarray]:
    """New values for `layer.weights`, in their order, drawn as its own configuration says.

    A twin of the layer is made from its configuration and built for the same input shape, so whatever building
    does (a forget-gate bias, a moving variance of one) is done again.

    Raises:
        ValueError: if the layer cannot be made again from its configuration.
    """
    try:
        twin = type(layer).from_config(layer.get_config())
        twin.build_from_config(layer.get_build_config())
    except Exception as error:  # of any kind: a user's own constructor
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ValueError(f"{type(layer).__name__} cannot be made again from its configuration: {reason}") from error
    shapes, wanted = ([tuple(w.shape) for w in each.weights] for each in (twin, layer))
    if shapes != wanted:
        raise ValueError(f"{type(layer).__name__} made again has weights of shapes {shapes}, expected {wanted}")
    return [np.array(keras.ops.convert_to_numpy(weight.value)) for weight in twin.weights]
