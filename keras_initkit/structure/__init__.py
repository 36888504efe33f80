"""The structure of a model: its layers and kernels, and what each one does."""

import keras_initkit.structure._keras_layers  # noqa: F401  registers what Keras' own layers do
from keras_initkit.structure._kernels import Kernel, kernels, register_kernels
from keras_initkit.structure._layer_fans import layer_fans
from keras_initkit.structure._layer_paths import weighted_layers
from keras_initkit.structure._sublayers import sublayers

__all__ = ["Kernel", "kernels", "layer_fans", "register_kernels", "sublayers", "weighted_layers"]
