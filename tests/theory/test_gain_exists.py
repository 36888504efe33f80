"""Which functions have a gain, against closed forms; and that asking for it leaves a layer alone."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import gamma
from scipy.stats import norm

from keras_initkit.theory import activation_range, gain

SINGLE = keras.backend.backend() == "jax"  # computes in float32 unless told otherwise


def shrink(x):
    return ops.where(ops.abs(x) > 0.3, x, 0 * x)


def step(x):
    return ops.cast(x > 0.3, x.dtype)


def absolute_moment(power):
    """E|z|^power, z ~ N(0, 1)."""
    return 2 ** (power / 2) * gamma((power + 1) / 2) / math.sqrt(math.pi)


# Mean squares of f or f', with what the quadrature is good to: rounding, but for singularities.
FINITE = {
    "exp(3 x)": (lambda x: ops.exp(3 * x), "forward", math.exp(18), 1e-6),
    "exp(3 x)'": (lambda x: ops.exp(3 * x), "backward", 9 * math.exp(18), 1e-5),
    "exp(4.5 x)": (lambda x: ops.exp(4.5 * x), "forward", math.exp(40.5), 1e-6),
    "exp(x^2 / 5)": (lambda x: ops.exp(x * x / 5), "forward", math.sqrt(5), 1e-6),
    "x^6": (lambda x: x**6, "forward", 10395, 1e-6),
    "(x^6)'": (lambda x: x**6, "backward", 36 * 945, 1e-5),
    "relu(x)^3": (lambda x: ops.relu(x) ** 3, "forward", 15 / 2, 1e-6),
    "(relu(x)^3)'": (lambda x: ops.relu(x) ** 3, "backward", 27 / 2, 1e-5),
    "step": (step, "forward", norm.sf(0.3), 1e-6),
    "floor": (ops.floor, "forward", sum(k * k * (norm.cdf(k + 1) - norm.cdf(k)) for k in range(-40, 40)), 1e-6),
    "log|x|": (lambda x: ops.log(ops.abs(x)), "forward", np.pi**2 / 8 + ((np.euler_gamma + np.log(2)) / 2) ** 2, 1e-6),
    "|x|^(1/2)": (lambda x: ops.abs(x) ** 0.5, "forward", absolute_moment(1), 1e-6),
    "|x|^(-1/4)": (lambda x: ops.abs(x) ** -0.25, "forward", absolute_moment(-0.5), 1e-5),
    "(|x|^(3/4))'": (lambda x: ops.abs(x) ** 0.75, "backward", 9 / 16 * absolute_moment(-0.5), 3e-4),
    "shrink": (shrink, "forward", 2 * (0.3 * norm.pdf(0.3) + norm.sf(0.3)), 1e-6),
    "shrink'": (shrink, "backward", 2 * norm.sf(0.3), 1e-4),
    "(x + step)'": (lambda x: x + step(x), "backward", 1, 1e-4),
    "sawtooth'": (lambda x: x / 1.3 - ops.floor(x / 1.3), "backward", 1 / 1.69, 1e-4),
    "clip(100 x)'": (lambda x: ops.clip(100 * x, -1, 1), "backward", 1e4 * (2 * norm.cdf(0.01) - 1), 1e-4),
    "tanh(1000 x)'": (lambda x: ops.tanh(1000 * x), "backward", 1000 * 4 / 3 / math.sqrt(2 * math.pi), 1e-4),
}
if not SINGLE:  # what float32 has no number for
    FINITE |= {
        "exp(9 x)": (lambda x: ops.exp(9 * x), "forward", math.exp(162), 1e-6),
        "exp(-9 x)'": (lambda x: ops.exp(-9 * x), "backward", 81 * math.exp(162), 1e-6),
        "1 + x / 10^6": (lambda x: 1 + 1e-6 * x, "backward", 1e-12, 1e-5),
    }


@pytest.mark.parametrize("name", FINITE)
def test_a_finite_mean_square_however_large_has_its_gain(name):
    function, direction, mean_square, tolerance = FINITE[name]
    assert gain(function, direction) == pytest.approx(mean_square**-0.5, rel=tolerance)


INFINITE = {
    "1/x": (lambda x: 1 / x, "forward"),
    "1/x'": (lambda x: 1 / x, "backward"),
    "1/x^2": (lambda x: 1 / x**2, "forward"),
    "1/(x - 0.3)": (lambda x: 1 / (x - 0.3), "forward"),
    "|x|^(-1/2)": (lambda x: ops.abs(x) ** -0.5, "forward"),
    "|x - 0.3|^(-1/2)": (lambda x: ops.abs(x - 0.3) ** -0.5, "forward"),
    "(|x|^(1/2))'": (lambda x: ops.abs(x) ** 0.5, "backward"),
    "log|x|'": (lambda x: ops.log(ops.abs(x)), "backward"),
    "log|x - 0.3|'": (lambda x: ops.log(ops.abs(x - 0.3)), "backward"),
    "tan": (ops.tan, "forward"),
    "tan'": (ops.tan, "backward"),
    "1/sin(3 x)": (lambda x: 1 / ops.sin(3 * x), "forward"),
    "exp(x^2 / 4)": (lambda x: ops.exp(x * x / 4), "forward"),
    "exp(x^2)": (lambda x: ops.exp(x * x), "forward"),
    "log x, NaN below 0": (ops.log, "forward"),
    "arcsin x, NaN beyond 1": (ops.arcsin, "forward"),
    "NaN in between": (lambda x: ops.where(ops.abs(x) < 0.01, x / (0 * x), x), "forward"),
    "infinite in between": (lambda x: ops.where(ops.abs(x) < 0.01, 1 / (0 * x), x), "forward"),
}
ZERO = {
    "constant'": lambda x: 0 * x + 1,
    "constant but for rounding'": lambda x: ops.exp(x) * ops.exp(-x),
    "sign'": ops.sign,
    "round'": ops.round,
    "step'": step,
    "floor(2.7 x)'": lambda x: ops.floor(2.7 * x),
}


@pytest.mark.parametrize("name", INFINITE)
def test_an_infinite_mean_square_has_none(name):
    function, direction = INFINITE[name]
    with pytest.raises(ValueError, match=rf"no {direction} gain, .*mean square .*is (inf|nan)"):
        gain(function, direction)


@pytest.mark.parametrize("name", ZERO)
def test_what_lets_no_gradient_through_has_none(name):
    with pytest.raises(ValueError, match=r"no backward gain, the mean square of its derivative is 0\.0"):
        gain(ZERO[name], "backward")


def state(layer):
    weights = [keras.ops.convert_to_numpy(variable.value) for variable in layer.variables]
    return layer.built, len(layer._inbound_nodes), [(value.shape, value.tobytes()) for value in weights]


@pytest.mark.parametrize(
    ("make", "slope"),
    [
        (lambda: keras.layers.PReLU(), 0.0),
        (lambda: keras.layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25)), 0.25),
        (lambda: keras.layers.LeakyReLU(0.1), 0.1),
        (lambda: keras.layers.Activation(keras.layers.PReLU()), 0.0),
        (lambda: keras.layers.Activation("relu"), 0.0),
    ],
)
def test_a_layer_is_neither_built_nor_changed(make, slope):
    layer = make()
    inner = getattr(layer, "activation", layer)
    before, inner_before = state(layer), isinstance(inner, keras.Layer) and state(inner)
    for direction in ("forward", "backward"):
        assert gain(layer, direction) == pytest.approx(((1 + slope**2) / 2) ** -0.5, rel=1e-6)
    assert activation_range(layer) == (-math.inf if slope else 0.0, math.inf)
    assert state(layer) == before
    assert (isinstance(inner, keras.Layer) and state(inner)) == inner_before
    layer(np.ones((2, 3)))  # and can still be built for its own input


def test_a_built_layer_has_the_gain_of_its_trained_weights():
    class Slope(keras.layers.Layer):
        def build(self, _):
            self.slope = self.add_weight(shape=(), initializer="zeros")

        def call(self, x):
            return ops.maximum(x, 0) + self.slope * ops.minimum(x, 0)

    layer = Slope()
    layer.build((None, 3))
    layer.slope.assign(0.5)
    before = state(layer)
    assert gain(layer) == pytest.approx((1.25 / 2) ** -0.5, rel=1e-6)
    assert state(layer) == before


@pytest.mark.parametrize("kind", [keras.layers.ReLU, keras.layers.PReLU, keras.Layer])
def test_a_class_is_refused(kind):
    with pytest.raises(ValueError, match=rf"activation: got the class .*, expected an instance: {kind.__name__}\(\)"):
        gain(kind)
