"""What is wrong with a model or its training, why, and what to change."""

from keras_initkit.diagnosis.diagnose import diagnose
from keras_initkit.diagnosis.finding import Finding

__all__ = ["Finding", "diagnose"]
