"""Conformance kit: what every Keras initializer, yours included, can be held to.

    from keras_initkit.testing import check_initializer, parametrize_with_checks

It is imported by name, not by `import keras_initkit`, since only tests need it.
"""

from keras_initkit.testing import keras_expectations, kit_expectations, kit_structures  # noqa: F401  (the table)
from keras_initkit.testing.expectations import expect
from keras_initkit.testing.predicates import Orthogonal
from keras_initkit.testing.runner import CHECKS, check_initializer, failed_checks, parametrize_with_checks
from keras_initkit.testing.subject import ConformanceError, NotApplicable

__all__ = [
    "CHECKS",
    "ConformanceError",
    "NotApplicable",
    "Orthogonal",
    "check_initializer",
    "expect",
    "failed_checks",
    "parametrize_with_checks",
]
