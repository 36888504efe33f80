"""Formulas on numbers: fans, gains, the critical point. Knows no Keras layer or model."""

from keras_initkit.theory.activations import activation_range
from keras_initkit.theory.critical import CriticalPoint, critical_point
from keras_initkit.theory.fans import Fans, compute_fans
from keras_initkit.theory.gains import gain

__all__ = ["CriticalPoint", "Fans", "activation_range", "compute_fans", "critical_point", "gain"]
