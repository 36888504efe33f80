"""The critical point against closed forms and adaptive quadrature."""

import math

import numpy as np
import pytest
from helpers import gaussian_mean
from scipy import special

from keras_initkit.theory import critical_point
from keras_initkit.theory._gains import expectation

# JAX evaluates activations in float32 by default.
CLOSE = 2e-5


def gelu(x):
    return x * special.ndtr(x)


def gelu_slope(x):
    return special.ndtr(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


FUNCTIONS = {"tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2), "gelu": (gelu, gelu_slope)}


@pytest.mark.parametrize(
    ("activation", "options"),
    [
        ("tanh", {"sigma_b": 0.05}),
        ("tanh", {"sigma_b": 0.001}),
        ("tanh", {"q": 1.0}),
        ("tanh", {"q": 0.01}),
        ("gelu", {"q": 5.0}),
    ],
)
def test_satisfies_both_equations(activation, options):
    sigma_w, sigma_b, q = critical_point(activation, **options)
    f, slope = FUNCTIONS[activation]
    assert sigma_w**2 * gaussian_mean(lambda x: slope(x) ** 2, q) == pytest.approx(1, rel=CLOSE)
    assert sigma_w**2 * gaussian_mean(lambda x: f(x) ** 2, q) + sigma_b**2 == pytest.approx(q, rel=CLOSE)
    assert options.items() <= {"sigma_b": sigma_b, "q": q}.items()


@pytest.mark.parametrize(
    ("activation", "sigma_w"),
    [
        ("relu", math.sqrt(2)),
        ("linear", 1),
        ("leaky_relu", math.sqrt(2 / 1.04)),
        ("tanh", 1),
        ("softsign", 1),
        ("elu", 1),
    ],
)
def test_without_biases(activation, sigma_w):
    point = critical_point(activation)
    assert point.sigma_w == pytest.approx(sigma_w, rel=CLOSE)
    assert point.sigma_b == 0


@pytest.mark.parametrize("q", [0.1, 3.0])
def test_relu_is_critical_at_any_variance(q):
    sigma_w, sigma_b, at = critical_point("relu", q=q)
    assert (sigma_w, sigma_b, at) == (pytest.approx(math.sqrt(2), rel=CLOSE), 0, q)


def test_erf_has_a_closed_form():
    """E[erf(sqrt(q) z)^2] = 2/pi asin(2q / (1 + 2q)) and E[erf'(...)^2] = 4/pi / sqrt(1 + 4q)."""
    import keras

    q = 0.7
    assert expectation(keras.ops.erf, variance=q) == pytest.approx(
        2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=CLOSE
    )
    assert expectation(keras.ops.erf, derivative=True, variance=q) == pytest.approx(
        4 / math.pi / math.sqrt(1 + 4 * q), rel=CLOSE
    )


@pytest.mark.parametrize("name", ["tanh", "silu", "elu", "hard_sigmoid"])
def test_quadrature_of_single_precision_ends(name):
    """What JAX computes by default, and a user's function may: refining below its rounding never ended."""
    import keras

    activation = getattr(keras.activations, name)
    single = lambda z: keras.ops.cast(activation(keras.ops.cast(z, "float32")), z.dtype)  # noqa: E731
    for derivative in (False, True):
        assert expectation(single, derivative=derivative) == pytest.approx(
            expectation(activation, derivative=derivative), rel=1e-4
        )


@pytest.mark.parametrize(
    ("activation", "options", "message"),
    [
        ("gelu", {"q": 1.0}, "q: got 1.0, where gelu has no stable critical point"),
        ("gelu", {}, "sigma_b: got 0, with which gelu has no stable critical point. Give q"),
        ("sigmoid", {}, "sigma_b: got 0, with which sigmoid has no"),
        ("softplus", {"q": 5.0}, "q: got 5.0, where softplus has no critical point: it would need biases"),
        ("relu", {"sigma_b": 0.1}, "sigma_b: got 0.1, with which relu has no stable"),
        ("tanh", {"sigma_b": -1}, "sigma_b: got -1, expected a finite number of at least 0"),
        ("tanh", {"sigma_b": "small"}, "sigma_b: got 'small'"),
        ("tanh", {"q": float("nan")}, "q: got nan, expected a finite number above 0"),
        ("tanh", {"q": 0}, "q: got 0, expected a finite number above 0"),
        ("tanh", {"q": 1, "sigma_b": 1}, "sigma_b, q: got 1 and 1, expected one of them"),
        (lambda x: 0 * x, {"q": 1}, "has no critical point, the mean square of its derivative is 0"),
    ],
)
def test_where_there_is_none(activation, options, message):
    with pytest.raises(ValueError, match=message):
        critical_point(activation, **options)


def test_what_a_user_may_change_is_not_remembered():
    """A closure, like a layer with a slope that is trained, can be another function at the next call."""
    import keras

    scale = [1.0]
    activation = lambda x: keras.ops.tanh(scale[0] * x)  # noqa: E731
    before = critical_point(activation, q=1.0)
    scale[0] = 2.0
    after = critical_point(activation, q=1.0)
    assert before.sigma_w == pytest.approx(critical_point("tanh", q=1.0).sigma_w, rel=CLOSE)
    assert after.sigma_w == pytest.approx(critical_point("tanh", q=4.0).sigma_w / 2, rel=1e-4)
    assert critical_point("tanh", q=1.0) is critical_point("tanh", q=1.0)
