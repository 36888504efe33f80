"""Theory applied to a model's structure: what its signal should do at initialization."""

from keras_initkit.prediction.expected import Expected, Prediction

__all__ = ["Expected", "Prediction"]
