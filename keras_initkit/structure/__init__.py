"""What a model is made of."""

from keras_initkit.structure.graph import weighted_layers
from keras_initkit.structure.sublayers import sublayers

__all__ = ["sublayers", "weighted_layers"]
