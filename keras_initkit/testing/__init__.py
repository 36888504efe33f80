"""Conformance kit: checks that any Keras initializer, yours included, must pass.

    from keras_initkit.testing import check_initializer, parametrize_with_checks

It is imported by name, not by `import keras_initkit`, since only tests need it.
"""

import keras_initkit.testing.declarations  # noqa: F401  fills the table
from keras_initkit.testing._predicates import Orthogonal
from keras_initkit.testing._runner import CHECKS, check_initializer, failed_checks, parametrize_with_checks
from keras_initkit.testing._subject import ConformanceError, NotApplicable
from keras_initkit.testing.declarations._declare import expect

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
