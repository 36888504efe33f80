"""What is wrong with a model or its training, why, and what to change."""

from keras_initkit.diagnosis.diagnose import diagnose
from keras_initkit.diagnosis.finding import Finding
from keras_initkit.diagnosis.repair import repair

__all__ = ["Finding", "diagnose", "repair"]
