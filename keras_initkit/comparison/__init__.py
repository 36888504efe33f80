"""The same model under many initializers: a table, figures, and logs for TensorBoard."""

from keras_initkit.comparison._compare import compare
from keras_initkit.comparison._result import Comparison

__all__ = ["Comparison", "compare"]
