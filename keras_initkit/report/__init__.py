"""What was measured: rows, reports, files and renderings."""

from keras_initkit.report._report import SignalReport
from keras_initkit.report._rows import TensorStats

__all__ = ["SignalReport", "TensorStats"]
