"""Formulas on numbers: fans, gains, the critical point. Knows no Keras layer or model."""

from keras_initkit.theory.activations import activation_range
from keras_initkit.theory.fans import Fans, compute_fans
from keras_initkit.theory.gains import gain
from keras_initkit.theory.meanfield import CriticalPoint, critical_point

__all__ = ["CriticalPoint", "Fans", "activation_range", "compute_fans", "critical_point", "gain"]
