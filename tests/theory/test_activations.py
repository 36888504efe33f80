import math

import keras
import numpy as np
import pytest

from keras_initkit.theory import activation_range
from keras_initkit.theory._activations import activation_names, evaluate, resolve


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("tanh", (-1, 1)),
        ("sigmoid", (0, 1)),
        ("hard_sigmoid", (0, 1)),
        ("softsign", (-1, 1)),
        ("relu", (0, math.inf)),
        ("relu6", (0, 6)),
        ("elu", (-1, math.inf)),
        ("gelu", (0, math.inf)),
        ("exponential", (0, math.inf)),
        ("linear", (-math.inf, math.inf)),
    ],
)
def test_range(name, limits):
    assert activation_range(name) == limits


def test_a_falling_activation_has_a_rising_range():
    assert activation_range(lambda z: -keras.ops.sigmoid(z)) == (-1, 0)


def test_names_are_those_that_keras_resolves():
    assert {"relu", "gelu", "tanh", "linear", "softmax"} <= set(activation_names())
    for name in activation_names():
        assert callable(resolve(name))


def test_evaluate_keeps_double_precision_where_there_is_any():
    z = np.linspace(-3, 3, 101)
    tolerance = 1e-6 if keras.backend.backend() == "jax" else 1e-14
    np.testing.assert_allclose(evaluate(keras.ops.tanh, z), np.tanh(z), rtol=tolerance)
    with pytest.raises(ValueError, match=r"z: got shape \(2, 2\), expected a vector"):
        evaluate(keras.ops.tanh, np.ones((2, 2)))
