"""Theory applied to a model's structure: what its signal should do at initialization."""

from keras_initkit.prediction.expected import Expected, Prediction
from keras_initkit.prediction.inputs import InputMoments
from keras_initkit.prediction.walk import predict

__all__ = ["Expected", "InputMoments", "Prediction", "predict"]
