"""Matplotlib figures. They take plain numbers and return figures; nothing is shown."""

from keras_initkit.plots._comparison_figures import activation_histograms, training_curves, variance_by_layer
from keras_initkit.plots._depth_figure import signal_by_depth
from keras_initkit.plots._history_figure import variance_over_training

__all__ = [
    "activation_histograms",
    "signal_by_depth",
    "training_curves",
    "variance_by_layer",
    "variance_over_training",
]
