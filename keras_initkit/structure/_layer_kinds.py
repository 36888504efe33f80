"""What a layer does, whatever its class."""

from __future__ import annotations

import keras

from keras_initkit.theory._activations import activation_range


def output_limits(layer: keras.layers.Layer) -> tuple[float, float] | None:
    """Limits of what a layer's activation puts out; `None` where it does not act on each element by itself."""
    activation = getattr(layer, "activation", None)
    if not callable(activation) or isinstance(activation, keras.Layer):  # calling a layer may build it
        return None
    try:
        return activation_range(activation)
    except Exception:  # whatever a user's function raises on four numbers
        return None
