"""How a model's tensors are read."""

from keras_initkit.capture._probe import probe

__all__ = ["probe"]
