"""Callbacks for `model.fit`; installed and imported as `keras_initkit.callbacks`."""

from keras_initkit.callbacks._layer_stats import LayerStatsCallback
from keras_initkit.callbacks._schedule import every, logarithmic
from keras_initkit.callbacks._sinks import JSONLinesSink, Sink, TensorBoardSink
from keras_initkit.callbacks._tracker_sinks import MLflowSink, WandbSink
from keras_initkit.callbacks._watch import WatchedStep, watch

__all__ = [
    "JSONLinesSink",
    "LayerStatsCallback",
    "MLflowSink",
    "Sink",
    "TensorBoardSink",
    "WandbSink",
    "WatchedStep",
    "every",
    "logarithmic",
    "watch",
]
