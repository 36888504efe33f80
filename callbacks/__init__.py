"""Callbacks for `model.fit`; installed and imported as `keras_initkit.callbacks`."""

from keras_initkit.callbacks.layer_stats import LayerStatsCallback

__all__ = ["LayerStatsCallback"]
