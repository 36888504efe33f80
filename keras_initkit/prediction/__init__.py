"""Theory applied to a model: how signals and gradients should propagate at initialization."""

from keras_initkit.prediction._predict import predict
from keras_initkit.prediction._prediction import Prediction
from keras_initkit.prediction.algebra._input_moments import InputMoments
from keras_initkit.statistics._expected import Expected

__all__ = ["Expected", "InputMoments", "Prediction", "predict"]
