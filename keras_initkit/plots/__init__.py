"""Matplotlib figures of what was measured. They take plain numbers and return figures; nothing is shown."""

from keras_initkit.plots.comparison import activation_histograms, training_curves, variance_by_layer
from keras_initkit.plots.depth import signal_by_depth
from keras_initkit.plots.history import variance_over_training

__all__ = [
    "activation_histograms",
    "signal_by_depth",
    "training_curves",
    "variance_by_layer",
    "variance_over_training",
]
