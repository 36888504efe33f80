"""Matplotlib figures. They take plain numbers and return figures; nothing is shown."""

from keras_initkit.plots._comparison_figures import training_curves, variance_by_layer
from keras_initkit.plots._comparison_histograms import activation_histograms
from keras_initkit.plots._depth_figure import signal_by_depth
from keras_initkit.plots._histogram_panels import LayerHistogram
from keras_initkit.plots._history_figure import signal_over_training
from keras_initkit.plots._statistic_figures import statistic_by_layer, statistic_over_training

__all__ = [
    "LayerHistogram",
    "activation_histograms",
    "signal_by_depth",
    "signal_over_training",
    "statistic_by_layer",
    "statistic_over_training",
    "training_curves",
    "variance_by_layer",
]
