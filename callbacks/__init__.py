"""Callbacks for `model.fit`; installed and imported as `keras_initkit.callbacks`."""

from keras_initkit.callbacks._layer_stats import LayerStatsCallback
from keras_initkit.callbacks._schedule import every, logarithmic
from keras_initkit.callbacks._sinks import JSONLinesSink, Sink, TensorBoardSink
from keras_initkit.callbacks._tracker_sinks import MLflowSink, WandbSink
from keras_initkit.callbacks._verification import Difference, Verification
from keras_initkit.callbacks._verify import verify
from keras_initkit.callbacks._watch import WatchedStep, watch

__all__ = [
    "Difference",
    "JSONLinesSink",
    "LayerStatsCallback",
    "MLflowSink",
    "Sink",
    "TensorBoardSink",
    "Verification",
    "WandbSink",
    "WatchedStep",
    "every",
    "logarithmic",
    "verify",
    "watch",
]
