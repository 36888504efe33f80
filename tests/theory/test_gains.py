"""Gains against closed forms, SciPy's adaptive quadrature, and Monte Carlo."""

import itertools
import math

import keras
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf, expit
from scipy.stats import norm

from keras_initkit.theory import gain
from keras_initkit.theory._activations import activation_names
from keras_initkit.theory._gains import direction_for

# JAX computes in single precision unless told otherwise.
TOLERANCE = 1e-6 if keras.backend.backend() == "jax" else 1e-9


def expectation(function, *kinks):
    """E[function(z)^2], z ~ N(0, 1), between kinks, by SciPy."""
    borders = [-14.0, *kinks, 14.0]
    parts = [
        quad(lambda z: function(z) ** 2 * norm.pdf(z), *pair, epsabs=1e-14, epsrel=1e-13, limit=200)[0]
        for pair in itertools.pairwise(borders)
    ]
    return math.fsum(parts)


# Each activation and its derivative, written anew in NumPy, with its kinks.
ORACLES = {
    "linear": (lambda z: z, lambda z: 1.0, ()),
    "relu": (lambda z: max(z, 0), lambda z: float(z > 0), (0,)),
    "relu6": (lambda z: min(max(z, 0), 6), lambda z: float(0 < z < 6), (0, 6)),
    "leaky_relu": (lambda z: z if z > 0 else 0.2 * z, lambda z: 1.0 if z > 0 else 0.2, (0,)),
    "elu": (lambda z: z if z > 0 else math.expm1(z), lambda z: 1.0 if z > 0 else math.exp(z), (0,)),
    "selu": (
        lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * math.expm1(z)),
        lambda z: 1.0507009873554805 * (1.0 if z > 0 else 1.6732632423543772 * math.exp(z)),
        (0,),
    ),
    "gelu": (lambda z: z * norm.cdf(z), lambda z: norm.cdf(z) + z * norm.pdf(z), ()),
    "silu": (lambda z: z * expit(z), lambda z: expit(z) * (1 + z * (1 - expit(z))), ()),
    "tanh": (math.tanh, lambda z: 1 / math.cosh(z) ** 2, ()),
    "sigmoid": (expit, lambda z: expit(z) * expit(-z), ()),
    "softplus": (lambda z: np.logaddexp(0, z), expit, ()),
    "softsign": (lambda z: z / (1 + abs(z)), lambda z: 1 / (1 + abs(z)) ** 2, (0,)),
    "exponential": (math.exp, math.exp, ()),
    "hard_sigmoid": (lambda z: min(max(z / 6 + 0.5, 0), 1), lambda z: float(abs(z) < 3) / 6, (-3, 3)),
}


@pytest.mark.parametrize("name", ORACLES)
def test_named_activations(name):
    function, derivative, kinks = ORACLES[name]
    # Keras' gelu holds sqrt(2) in single precision; hard_sigmoid its slope.
    tolerance = max(TOLERANCE, 1e-8 if name in ("gelu", "hard_sigmoid") else 0)
    assert gain(name) == pytest.approx(expectation(function, *kinks) ** -0.5, rel=tolerance)
    assert gain(name, "backward") == pytest.approx(expectation(derivative, *kinks) ** -0.5, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("relu", 1.4142),
        ("gelu", 1.5335),
        ("silu", 1.6765),
        ("mish", 1.4868),
        ("elu", 1.2452),
        ("selu", 1.0000),
        ("tanh", 1.5925),
        ("sigmoid", 1.8462),
        ("softplus", 1.0419),
        ("softsign", 2.3375),
    ],
)
def test_published_digits(name, value):
    assert gain(name) == pytest.approx(value, abs=5.1e-5)


def test_erf_has_a_closed_form():
    """E[erf(z)^2] = 2/pi asin(2/3) and E[erf'(z)^2] = 4 / (pi sqrt(5)) (Williams 1997)."""
    assert gain(keras.ops.erf) == pytest.approx((2 / math.pi * math.asin(2 / 3)) ** -0.5, rel=TOLERANCE)
    assert gain(keras.ops.erf, "backward") == pytest.approx((4 / math.pi / math.sqrt(5)) ** -0.5, rel=TOLERANCE)
    assert erf(0.5) == pytest.approx(float(keras.ops.erf(0.5)), rel=1e-6)


@pytest.mark.parametrize("kink", [0.3, -1.23456, math.pi / 3])
def test_a_kink_anywhere_is_found(kink):
    def bent(z):
        return keras.ops.where(z > kink, z - kink, 0.1 * (z - kink))

    forward = expectation(lambda z: z - kink if z > kink else 0.1 * (z - kink), kink)
    backward = norm.sf(kink) + 0.01 * norm.cdf(kink)
    assert gain(bent) == pytest.approx(forward**-0.5, rel=1e-7)
    single = keras.backend.backend() == "jax"
    assert gain(bent, "backward") == pytest.approx(backward**-0.5, rel=1e-4 if single else 1e-7)


@pytest.mark.parametrize(
    "name", [n for n in activation_names() if n not in ("softmax", "log_softmax", "glu", "sparsemax", "threshold")]
)
def test_every_keras_activation_by_monte_carlo(name):
    """2 n draws, each with its mirror image; five standard errors of their mean square."""
    z = np.random.default_rng(0).standard_normal(200_000)
    squares = (
        keras.ops.convert_to_numpy(keras.activations.get(name)(keras.ops.convert_to_tensor(np.stack([z, -z])))) ** 2
    )
    pairs = squares.astype("float64").mean(axis=0)
    error = pairs.std() / math.sqrt(len(z))
    assert abs(gain(name) ** -2 - pairs.mean()) < 5 * error + 1e-6 * pairs.mean()


def test_layers_and_parametrised_activations():
    slope = 0.1
    expected = ((1 + slope**2) / 2) ** -0.5
    assert gain(keras.layers.LeakyReLU(slope)) == pytest.approx(expected, rel=1e-7)
    assert gain(lambda z: keras.activations.leaky_relu(z, slope), "backward") == pytest.approx(expected, rel=1e-6)
    assert gain(None) == gain("linear") == gain(keras.activations.linear) == 1.0


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.01, 0.3, 1.0, 5.5])
def test_leaky_relu_of_any_slope(slope):
    """E[f^2] = E[f'^2] = (1 + slope^2) / 2, relative error below 1e-6."""
    for direction in ("forward", "backward"):
        value = gain(lambda z: keras.ops.maximum(z, 0.0) + slope * keras.ops.minimum(z, 0.0), direction)
        assert value == pytest.approx(((1 + slope**2) / 2) ** -0.5, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_elu_of_any_alpha(alpha):
    """The closed form for z < 0: E[(e^z - 1)^2] and E[e^2z] of half a Gaussian."""
    half = math.exp(2) * norm.cdf(-2)
    forward = 1 / 2 + alpha**2 * (half - 2 * math.exp(0.5) * norm.cdf(-1) + 1 / 2)
    assert gain(lambda z: keras.activations.elu(z, alpha)) == pytest.approx(forward**-0.5, rel=1e-6)
    backward = gain(lambda z: keras.activations.elu(z, alpha), "backward")
    assert backward == pytest.approx((1 / 2 + alpha**2 * half) ** -0.5, rel=1e-6)


def test_a_name_alone_is_not_taken_for_the_closed_form():
    """A user's own `relu` is measured, not recognised."""

    def relu(z):
        return 3 * keras.activations.relu(z)

    assert gain(relu) == pytest.approx(math.sqrt(2) / 3, rel=1e-7)


def test_a_gain_can_be_asked_for_while_a_model_is_traced():
    gains = []

    class Asks(keras.layers.Layer):
        def call(self, x):
            gains.append(gain("mish"))
            return x * gains[-1]

    layer = Asks()
    inputs = keras.Input((3,))
    keras.Model(inputs, layer(inputs)).predict(np.ones((2, 3)), verbose=0)
    assert len(gains) > 1  # once symbolically, once in the compiled function
    assert set(gains) == {gain("mish")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tanhh",), r"Keras knows none called 'tanhh'\. Did you mean 'tanh'"),
        (("zzzz",), r"Keras knows none called 'zzzz'\. Known: .*elu, exponential"),
        ((3,), r"activation: got 3, expected the name of a Keras activation, a callable or None"),
        (("softmax",), r"softmax does not act on each element by itself, so it has no gain"),
        ((lambda z: z[:, ::2],), r"does not act on each element by itself"),
        ((lambda z, limit: z,), r"cannot be called with a tensor alone .* Bind its other arguments first"),
        ((lambda z: 0 * z,), r"no forward gain, its mean square is 0\.0"),
        ((keras.ops.exp, "sideways"), r"direction: got 'sideways', expected one of 'forward', 'backward'"),
        ((lambda z: keras.ops.exp(z * z),), r"no forward gain, its mean square is inf"),
    ],
)
def test_no_gain(arguments, message):
    with pytest.raises(ValueError, match=message):
        gain(*arguments)


# Bounded, with the mean of its values for z ~ N(0, 1): one half by symmetry, or none.
BOUNDED = {"sigmoid": 0.5, "hard_sigmoid": 0.5, "tanh": 0.0, "softsign": 0.0, "relu6": None}


@pytest.mark.parametrize("name", ORACLES)
def test_the_backward_gain_stands_for_bounded_activations_that_are_mostly_mean(name):
    function, _, kinks = ORACLES[name]
    mean = BOUNDED.get(name, 0.0)
    if mean is None:  # phi(0) - phi(6) + 6 (1 - Phi(6))
        mean = norm.pdf(0) - norm.pdf(6) + 6 * norm.sf(6)
    variance = expectation(function, *kinks) - mean**2
    assert direction_for(name) == ("backward" if mean**2 > variance else "forward")


def test_the_way_up_of_a_hyperbolic_tangent_decides():
    # tanh + c: its mean c outweighs its variance, 0.3943, from c = 0.628 on.
    assert direction_for(lambda z: keras.ops.tanh(z) + 0.62) == "forward"
    assert direction_for(lambda z: keras.ops.tanh(z) + 0.64) == "backward"
