"""Formulas on numbers: fans, gains. Knows no Keras layer or model."""

from keras_initkit.theory.activations import activation_range
from keras_initkit.theory.fans import Fans, compute_fans
from keras_initkit.theory.gains import gain

__all__ = ["Fans", "activation_range", "compute_fans", "gain"]
