"""Whole-model initialization: every kernel of a model by a scheme, in one call."""

from keras_initkit.schemes import (  # noqa: F401  they register their schemes
    auto,
    data_dependent,
    drawn,
    fixup,
    gradinit,
    lsuv,
    metainit,
    pretraining,
)
from keras_initkit.schemes.initialize import initialize
from keras_initkit.schemes.plan import Plan, WeightChange
from keras_initkit.schemes.registry import register_scheme, scheme_names
from keras_initkit.schemes.report import InitializationReport

__all__ = ["InitializationReport", "Plan", "WeightChange", "initialize", "register_scheme", "scheme_names"]
