"""The only files that import a framework; the active one's is loaded, when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def step_meter(model: keras.Model, find_layers: Callable[[keras.Model], dict[str, keras.layers.Layer]]) -> Any:
    """What measures single training steps of `model` on the active backend.

    Args:
        model: a compiled model.
        find_layers: returns the layers of a built model that are to be read, by path.

    Raises:
        ValueError: on a backend where steps cannot be measured yet.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"LayerStatsCallback: the Keras backend is {backend!r}, expected 'tensorflow', the one on which "
            "training steps are measured. Set KERAS_BACKEND=tensorflow before Keras is imported."
        )
    from keras_initkit.signal.backends.tensorflow import StepMeter

    return StepMeter(model, find_layers)
