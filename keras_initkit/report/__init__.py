"""What was measured: reports, their statistics by layer, files and renderings."""

from keras_initkit.report._flow import LayerFlow
from keras_initkit.report._report import SignalReport
from keras_initkit.report._rows import TensorStats
from keras_initkit.report._scalars import STATISTICS, register_statistic

__all__ = ["STATISTICS", "LayerFlow", "SignalReport", "TensorStats", "register_statistic"]
