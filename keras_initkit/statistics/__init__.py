"""Statistics of one tensor, on the host and on the device."""

from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._tap import KINDS, Tap

__all__ = ["KINDS", "Moments", "Tap"]
