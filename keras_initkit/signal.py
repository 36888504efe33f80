"""Reports of what was measured in a model, and the statistics in them."""

from keras_initkit.report import STATISTICS, LayerFlow, SignalReport, TensorStats, register_statistic
from keras_initkit.statistics import KINDS, Moments, Tap

__all__ = ["KINDS", "STATISTICS", "LayerFlow", "Moments", "SignalReport", "Tap", "TensorStats", "register_statistic"]
