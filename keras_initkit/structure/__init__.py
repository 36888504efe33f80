"""What a model is made of: its kernels and what each layer does with them."""

import keras_initkit.structure.keras_layers  # noqa: F401  registers what Keras' own layers do
from keras_initkit.structure.kernels import Kernel, kernels, layer_fans, register_kernels
from keras_initkit.structure.sublayers import sublayers

__all__ = ["Kernel", "kernels", "layer_fans", "register_kernels", "sublayers"]
