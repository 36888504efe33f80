"""Normalizations and activations are known by what they do, whoever wrote them."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initkit as ik
from keras_initkit.structure._calls import traced_once
from keras_initkit.structure._following import following_activations
from keras_initkit.structure._patterns import gathered_calls
from keras_initkit.structure._residual import residual_branches


def written(function):
    """A model of one layer whose call is `function`, between two kernels."""

    class Own(layers.Layer):
        def build(self, shape):
            self.gain = self.add_weight(shape=(shape[-1],), name="gain", initializer="ones")

        def call(self, x):
            return function(self, x)

    inputs = keras.Input((8,))
    hidden = Own(name="own")(layers.Dense(8, name="before")(inputs))
    return keras.Model(inputs, layers.Dense(2, name="after")(hidden))


def mean_square(x):
    return ops.mean(ops.square(x), -1, keepdims=True)


def centered(x):
    return x - ops.mean(x, -1, keepdims=True)


def by_moments(x):
    mean, variance = ops.moments(x, [-1], keepdims=True)
    return (x - mean) / ops.sqrt(variance + 1e-5)


NORMALIZATIONS = {
    "rms": lambda own, x: x * ops.rsqrt(mean_square(x) + 1e-6),
    "rms_with_gain": lambda own, x: x * ops.rsqrt(mean_square(x) + 1e-6) * own.gain,
    "rms_by_product": lambda own, x: x / ops.sqrt(ops.mean(x * x, -1, keepdims=True) + 1e-6),
    "rms_by_power": lambda own, x: x * (ops.mean(x**2, -1, keepdims=True) + 1e-6) ** -0.5,
    "layer": lambda own, x: centered(x) / ops.sqrt(ops.var(x, -1, keepdims=True) + 1e-5),
    "layer_by_parts": lambda own, x: centered(x) * ops.rsqrt(mean_square(centered(x)) + 1e-5),
    "moments": lambda own, x: by_moments(x),
    "deviation": lambda own, x: x / (ops.std(x, -1, keepdims=True) + 1e-6),
    "length": lambda own, x: x / ops.maximum(ops.sqrt(ops.sum(ops.square(x), -1, keepdims=True)), 1e-7),
    "largest": lambda own, x: x / ops.max(ops.abs(x), -1, keepdims=True),
}
OTHERS = {
    "centered": lambda own, x: centered(x),
    "gate_of_a_mean": lambda own, x: x * ops.mean(x, -1, keepdims=True),
    "softmax": lambda own, x: ops.softmax(x),
    "bounded": lambda own, x: x / (1 + ops.abs(x)),
    "large_constant": lambda own, x: x * ops.rsqrt(mean_square(x) + 1.0),
    "rms_of_another": lambda own, x: x * ops.rsqrt(mean_square(own.gain) + 1e-6),
}


@pytest.mark.parametrize("name", sorted(NORMALIZATIONS))
def test_what_divides_by_a_statistic_of_itself_is_a_normalization(name):
    model = written(NORMALIZATIONS[name])
    found = [call for call in gathered_calls(model) if call.role == "normalization"]
    before = next(call for call in gathered_calls(model) if call.path == "before")
    assert [call.inputs for call in found] == [before.outputs]
    # By numbers: its scale is gone, but for the small constant that keeps the denominator from zero.
    x = np.random.default_rng(0).standard_normal((16, 8)).astype("float32")
    one, two = (ops.convert_to_numpy(model.get_layer("own")(factor * x)) for factor in (1.0, 8.0))
    np.testing.assert_allclose(one, two, rtol=1e-4)
    context = ik.diagnosis.context._model_context.ModelContext(model)
    assert context.normalized == {"before"}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_what_keeps_its_scale_is_none(name):
    model = written(OTHERS[name])
    assert [call.path for call in gathered_calls(model) if call.role == "normalization"] == []
    assert ik.diagnosis.context._model_context.ModelContext(model).normalized == set()


def test_a_normalization_whose_statistic_is_read_elsewhere_stays_operations():
    model = written(lambda own, x: x * ops.rsqrt(mean_square(x) + 1e-6) + ops.rsqrt(mean_square(x) + 1e-6))
    shared = written(lambda own, x: (lambda scale: x * scale + scale)(ops.rsqrt(mean_square(x) + 1e-6)))
    assert not any(call.role for call in gathered_calls(shared))
    assert len([call for call in gathered_calls(model) if call.role == "normalization"]) <= 1


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "swish": (lambda own, x: x * ops.sigmoid(x), lambda x: x / (1 + np.exp(-x))),
    "gelu": (
        lambda own, x: 0.5 * x * (1 + ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * ops.power(x, 3)))),
        gelu,
    ),
    "softsign": (lambda own, x: x / (1 + ops.abs(x)), lambda x: x / (1 + np.abs(x))),
    "squared_relu": (lambda own, x: ops.square(ops.relu(x)), lambda x: np.maximum(x, 0) ** 2),
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_what_acts_by_elements_is_an_activation(name):
    function, numpy = ACTIVATIONS[name]
    model = written(function)
    following = following_activations(model)["before"]
    assert following.certain
    z = np.linspace(-3, 3, 50)
    np.testing.assert_allclose(following.activation(z.astype("float32")), numpy(z), rtol=1e-5, atol=1e-6)
    assert ik.theory.gain(following.activation) == pytest.approx(ik.theory.gain(numpy_as_ops(name)), rel=1e-4)


def numpy_as_ops(name):
    return {"swish": "silu", "gelu": "gelu", "softsign": "softsign", "squared_relu": lambda x: ops.relu(x) ** 2}[name]


def test_straight_lines_and_products_of_signals_are_none():
    line = written(lambda own, x: 2.0 * x + 1.0)
    gate = written(lambda own, x: ops.sigmoid(x[:, :4]) * x[:, 4:])
    for model in (line, gate):
        assert not any(call.role for call in gathered_calls(model))


class Norm(layers.Layer):
    def call(self, x):
        return x * ops.rsqrt(mean_square(x) + 1e-6)


class Block(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        dense = layers.Dense
        self.norms = [Norm(name="norm_0"), Norm(name="norm_1")]
        self.query, self.key, self.value, self.out = (dense(8, name=name) for name in ("query", "key", "value", "out"))
        self.up, self.down = dense(32, name="up"), dense(8, name="down")

    def call(self, x):
        y = self.norms[0](x)
        scores = self.query(y) @ ops.swapaxes(self.key(y), 1, 2) / 8**0.5
        x = x + self.out(ops.softmax(scores) @ self.value(y))
        return x + self.down(ops.gelu(self.up(self.norms[1](x))))


def test_residual_branches_and_attention_inside_a_layer():
    inputs = keras.Input((4, 8))
    hidden = Block(name="second")(Block(name="first")(layers.Dense(8, name="stem")(inputs)))
    model = keras.Model(inputs, layers.Dense(3, name="head")(Norm(name="last")(hidden)))
    branches = residual_branches(model)
    held = [[kernel.layer.name for kernel in branch.kernels] for branch in branches]
    assert held == [["query", "key", "value", "out"], ["up", "down"]] * 2
    where = {path: each.where for path, each in following_activations(model).items()}
    assert {where[f"first/{name}"] for name in ("query", "key", "value")} == {"attention"}
    assert where["first/up"].startswith("gelu")
    assert where["head"] == "output"


@pytest.mark.one_backend
def test_calls_are_gathered_once_for_a_trace():
    model = written(lambda layer, x: layer.gain * centered(x) / ops.sqrt(mean_square(centered(x)) + 1e-6))
    with traced_once():
        first = gathered_calls(model)
        assert gathered_calls(model) is first
    assert gathered_calls(model) is not first
    assert [call.path for call in gathered_calls(model)] == [call.path for call in first]
