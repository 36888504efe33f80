"""What the signal in a model does: the one place where a model is measured."""

from keras_initkit.report._report import SignalReport
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._tap import Tap

__all__ = ["Moments", "SignalReport", "Tap", "TensorStats"]
