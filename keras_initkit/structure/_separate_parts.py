"""Models without a `call`, which hold parts that their `train_step` joins: a GAN, a VAE."""

from __future__ import annotations

from typing import NoReturn

import keras

from keras_initkit.structure._sublayers import sublayers


def lacks_call(model: keras.Layer) -> bool:
    """Whether a model says how it trains, but not what it computes."""
    return isinstance(model, keras.Model) and type(model).call in (keras.Model.call, keras.Layer.call)


def is_built(layer: keras.Layer) -> bool:
    """Whether a layer or model has its weights; a model without a `call` never is built itself, but its parts are."""
    if layer.built or not lacks_call(layer):
        return layer.built
    parts = sublayers(layer)
    return bool(parts) and all(part.built for part in parts)


def check_has_call(model: keras.Model) -> None:
    """Raises a ValueError that names the parts of a model without `call`, such as a GAN with a `train_step` alone."""
    if lacks_call(model):
        raise_without_call(model)


def raise_without_call(model: keras.Model) -> NoReturn:
    """Raises the ValueError of `check_has_call`."""
    names = [name for name, value in vars(model).items() if isinstance(value, keras.Layer)]
    names = names or [layer.name for layer in sublayers(model)]
    raise ValueError(
        f"model: got {model.name}, a {type(model).__name__} without a `call`, expected a model that can be called. "
        + (f"Pass one of its parts: {', '.join(names)}." if names else "Give it a `call`.")
    )
