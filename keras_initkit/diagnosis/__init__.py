"""What is wrong with a model or its training, why, and what to change."""

from keras_initkit.diagnosis._diagnose import diagnose
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.diagnosis._repair import repair

__all__ = ["Finding", "diagnose", "repair"]
