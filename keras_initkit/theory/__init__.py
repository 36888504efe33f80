"""Formulas on numbers: fans, gains, mean-field theory, the critical point. Knows no Keras layer or model."""

from keras_initkit.theory._activations import activation_range
from keras_initkit.theory._critical import CriticalPoint, critical_point
from keras_initkit.theory._fans import Fans, compute_fans
from keras_initkit.theory._gains import expectation, gain
from keras_initkit.theory._mean_field import correlation_map, covariance, fixed_point, variance_map
from keras_initkit.theory._phases import DepthScale, chi_1, depth_scale, phase

__all__ = [
    "CriticalPoint",
    "DepthScale",
    "Fans",
    "activation_range",
    "chi_1",
    "compute_fans",
    "correlation_map",
    "covariance",
    "critical_point",
    "depth_scale",
    "expectation",
    "fixed_point",
    "gain",
    "phase",
    "variance_map",
]
