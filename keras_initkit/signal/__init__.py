"""What the signal in a model does: the one place where a model is measured."""

from keras_initkit.signal.moments import Moments
from keras_initkit.signal.report import SignalReport, TensorStats
from keras_initkit.structure.taps import Tap

__all__ = ["Moments", "SignalReport", "Tap", "TensorStats"]
