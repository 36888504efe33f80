"""Whole-model initialization: every kernel of a model by a scheme, in one call."""

from keras_initkit.schemes import data_driven, draw, trained  # noqa: F401  they register their schemes
from keras_initkit.schemes._initialization_report import InitializationReport
from keras_initkit.schemes._initialize import initialize
from keras_initkit.schemes._plan import Plan, WeightChange
from keras_initkit.schemes._registry import register_scheme, scheme_names

__all__ = ["InitializationReport", "Plan", "WeightChange", "initialize", "register_scheme", "scheme_names"]
