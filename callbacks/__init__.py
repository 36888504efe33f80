"""Callbacks for `model.fit`; installed and imported as `keras_initkit.callbacks`."""

from keras_initkit.callbacks._layer_stats import LayerStatsCallback
from keras_initkit.callbacks._schedule import every, logarithmic
from keras_initkit.callbacks._verification import Difference, Verification
from keras_initkit.callbacks._verify import verify

__all__ = ["Difference", "LayerStatsCallback", "Verification", "every", "logarithmic", "verify"]
