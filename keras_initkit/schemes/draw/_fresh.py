"""Fresh weights for a layer, as its config draws them."""

from __future__ import annotations

import keras
import numpy as np


def fresh_weights(layer: keras.layers.Layer) -> list[np.ndarray]:
    """Returns new values for `layer.weights`, in their order, drawn as its config says.

    A twin of the layer is made from its configuration and built for the same input shape, so whatever building
    does (a forget-gate bias, a moving variance of one) is done again.
    """
    try:
        twin = type(layer).from_config(layer.get_config())
        twin.build_from_config(layer.get_build_config())
    except Exception as error:  # of any kind: a user's own constructor
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ValueError(f"{type(layer).__name__} cannot be re-created from its config: {reason}") from error
    shapes, wanted = ([tuple(w.shape) for w in each.weights] for each in (twin, layer))
    if shapes != wanted:
        raise ValueError(
            f"{type(layer).__name__} re-created from its config has weights of shapes {shapes}, expected {wanted}"
        )
    return [np.array(keras.ops.convert_to_numpy(weight.value)) for weight in twin.weights]
