"""`"auto"`: which activation follows a kernel, and the variance that it then has."""

import re

import keras
import numpy as np
import pytest
from helpers import second_moment
from keras import layers as L
from scipy import stats

import keras_initkit as ik
from keras_initkit.structure._following import following_activations

pytestmark = pytest.mark.one_backend

ACTIVATIONS = {  # as NumPy has them
    "relu": lambda z: max(z, 0.0),
    "tanh": np.tanh,
    "gelu": lambda z: z * stats.norm.cdf(z),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "linear": lambda z: z,
}


def functional(between, inputs=(16,), follow=None):
    """A kernel named "first", what stands between, and a Dense layer behind."""
    given = keras.Input(inputs)
    x = between(L.Dense(64, name="first")(given))
    x = (follow or L.Flatten())(x)
    return keras.Model(given, L.Dense(2, name="head")(x))


def first(model):
    return following_activations(model)["first"]


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_variance_is_the_gains_square_over_the_fan(name):
    model = keras.Sequential([keras.Input((200,)), L.Dense(500, name), L.Dense(100)])
    change, head = ik.initialize(model, "auto", seed=1).kernels
    # Five standard errors of a variance of 100,000 (50,000) truncated normal numbers: 2 sqrt((2.37 - 1) / (4 n)).
    assert change.scale == pytest.approx(1 / second_moment(ACTIVATIONS[name]), rel=10 * np.sqrt(1.37 / 4e5))
    assert head.scale == pytest.approx(1.0, rel=10 * np.sqrt(1.37 / 2e5))


@pytest.mark.parametrize("name", ["sigmoid", "hard_sigmoid"])
def test_sigmoids_keep_the_gradient_instead_of_their_mean(name):
    slope = {"sigmoid": lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2, "hard_sigmoid": lambda z: (abs(z) < 3) / 6}[name]
    model = keras.Sequential([keras.Input((200,)), L.Dense(500, name), L.Dense(100)])
    change = ik.initialize(model, "auto", seed=1).kernels[0]
    assert change.scale == pytest.approx(1 / second_moment(slope), rel=10 * np.sqrt(1.37 / 4e5))


def test_a_recurrent_candidate_of_sigmoids_does_too():
    model = keras.Sequential([keras.Input((None, 400)), L.LSTM(300, activation="sigmoid")])
    ik.initialize(model, "auto", seed=1)
    gates = keras.ops.convert_to_numpy(model.layers[0].cell.kernel).reshape(400, 4, 300)
    scales = 400 * gates.var(axis=(0, 2))
    slope = second_moment(lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2)
    assert scales == pytest.approx([1, 1, 1 / slope, 1], rel=10 * np.sqrt(1.37 / 4.8e5))


WAYS = {
    "activation_layer": (lambda x: L.ReLU()(x), "relu"),
    "named_activation": (lambda x: L.Activation("tanh")(x), "tanh"),
    "normalised": (lambda x: L.Activation("gelu")(L.Dropout(0.1)(L.BatchNormalization()(x))), "gelu"),
    "reshaped": (lambda x: L.Activation("silu")(L.MaxPooling1D()(L.Reshape((8, 8))(x))), "silu"),
    "operation": (lambda x: keras.ops.tanh(x), "tanh"),
    "linear_first": (lambda x: L.ReLU()(L.Activation("linear")(x)), "relu"),
    "concatenated": (lambda x: L.ReLU()(L.Concatenate()([x, x])), "relu"),
    "agreeing": (lambda x: L.Concatenate()([L.ReLU()(x), L.Activation("relu")(x)]), "relu"),
    "nested": (lambda x: keras.Sequential([keras.Input((64,)), L.BatchNormalization(), L.ReLU()])(x), "relu"),
    "kernel": (lambda x: L.Dense(8, "relu", name="second")(x), "linear"),
}


@pytest.mark.parametrize("name", sorted(WAYS))
def test_the_activation_behind_what_stands_between(name):
    between, expected = WAYS[name]
    model = functional(between)
    found = first(model)
    assert found.certain
    assert ik.theory.gain(found.activation) ** -2 == pytest.approx(second_moment(ACTIVATIONS[expected]), rel=1e-6)


def test_leaky_and_parametric_relu_have_their_own_slope():
    for layer, slope in ((L.LeakyReLU(0.3), 0.3), (L.PReLU(alpha_initializer="zeros"), 0.0)):
        model = functional(layer)
        if isinstance(layer, L.PReLU):
            layer.alpha.assign(np.full(layer.alpha.shape, 0.25))
            slope = 0.25
        assert ik.theory.gain(first(model).activation) ** -2 == pytest.approx((1 + slope**2) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("between", "where"),
    [
        (
            lambda x: L.Add(name="sum")([x, L.ReLU()(x)]),
            "branches disagree: (no activation before sum|re_lu).*, (no activation before sum|re_lu)",
        ),
        (lambda x: L.Multiply(name="times")([x, x]), "no activation before times"),
        (lambda x: L.Softmax(name="soft")(x), "soft, which has no gain"),
        (lambda x: x * 2.0, "no activation before multiply"),
    ],
    ids=["fork", "product", "softmax", "operation"],
)
def test_what_the_graph_does_not_tell(between, where):
    model = functional(between)
    found = first(model)
    assert (found.activation, found.certain) == ("linear", False)
    report = ik.initialize(model, "auto", seed=0)
    assert report.kernels[0].note == "linear?"
    assert report.kernels[0].scale == pytest.approx(1, rel=10 * np.sqrt(1.37 / (4 * 16 * 64)))
    note = next(note for note in report.notes if note.startswith("Treated as linear"))
    assert re.search(f"first: .*{where}", note)


def test_outputs_and_attention_are_linear():
    inputs = keras.Input((6, 16))
    x = L.MultiHeadAttention(4, 8, name="attention")(inputs, inputs)
    x = L.TimeDistributed(L.Dense(16, "relu"), name="each")(x)
    out = L.Softmax()(L.Reshape((12,))(L.Dense(2, "relu", name="head")(x)))
    other = L.Dense(1, "sigmoid", name="side")(L.GlobalAveragePooling1D()(x))
    found = following_activations(keras.Model(inputs, [out, other]))
    assert {found[f"attention/{part}"].where for part in ("query", "key", "value", "attention_output")} == {"attention"}
    assert (found["head"].where, found["side"].where) == ("output", "output")
    assert found["each"].where == "own relu"


def test_a_layer_that_is_an_output_and_goes_on_is_hidden():
    inputs = keras.Input((8,))
    features = L.Dense(8, "relu", name="features")(inputs)
    model = keras.Model(inputs, [features, L.Dense(2, name="head")(features)])
    assert following_activations(model)["features"].where == "own relu"


def test_a_subclassed_model_is_followed_through_its_call():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = (L.Dense(64, name=name) for name in ("one", "two", "head"))

        def call(self, x):
            x = keras.ops.relu(self.one(x))
            return self.head(self.two(x) * keras.ops.sigmoid(1.702 * x))

    model = Own()
    model(np.ones((1, 64)))
    report = ik.initialize(model, "auto", seed=0)
    error = 10 * np.sqrt(1.37 / (4 * 64 * 64))
    assert [change.scale for change in report.kernels] == [pytest.approx(scale, rel=error) for scale in (2, 1, 1)]
    assert "two: no activation before multiply" in report.notes[0]


class OwnBranch(L.Layer):
    def build(self, shape):
        self.up = self.add_weight(shape=(shape[-1], 256), name="up")
        self.down = self.add_weight(shape=(shape[-1], 256), name="down")
        self.bias = self.add_weight(shape=(256,), initializer="zeros", name="bias")

    def call(self, x):
        return x + keras.ops.relu(x @ self.up + self.bias) @ keras.ops.transpose(self.down)


class OwnHead(L.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 100), name="w")

    def call(self, x):
        return keras.ops.softmax(x @ self.w)


def test_kernels_of_one_layer_are_followed_one_by_one():
    inputs = keras.Input((64,))
    model = keras.Model(inputs, OwnHead(name="head")(OwnBranch(name="branch")(inputs)))
    changes = {change.name: change for change in ik.initialize(model, "auto", seed=0).kernels}
    assert [changes[name].scale for name in ("up", "down", "w")] == pytest.approx([2, 1, 1], rel=0.05)
    assert changes["up"].note.startswith("relu")
    assert changes["w"].note == "output"
    report = ik.initialize(model, "fixup", seed=0)
    assert {c.name: (c.note, round(c.scale, 1)) for c in report.kernels} == {
        "up": ("1 of 2 in its branch", 2.0),
        "down": ("last of its branch", 0.0),
        "w": ("classifier", 0.0),
    }


def test_recurrent_layers_gate_by_gate():
    model = keras.Sequential(
        [keras.Input((5, 100)), L.LSTM(64, name="lstm", return_sequences=True), L.GRU(64, name="gru")]
    )
    ik.initialize(model, "auto", seed=0)
    candidate = 1 / second_moment(np.tanh)
    for name, scales, fan in (("lstm", [1, 1, candidate, 1], 100), ("gru", [1, 1, candidate], 64)):
        cell = model.get_layer(name).cell
        kernel, recurrent = (
            np.asarray(keras.ops.convert_to_numpy(variable.value)).astype("float64").reshape(-1, len(scales), 64)
            for variable in (cell.kernel, cell.recurrent_kernel)
        )
        for gate, scale in enumerate(scales):
            error = 10 * np.sqrt(1.37 / (4 * fan * 64))
            assert fan * (kernel[:, gate] ** 2).mean() == pytest.approx(scale, rel=error)
            np.testing.assert_allclose(recurrent[:, gate].T @ recurrent[:, gate], np.eye(64), atol=1e-4)


def test_a_deep_plain_network_keeps_its_signal():
    # 50 relu layers of width 256: the log variance has a standard deviation of sqrt(50 * 5 / 256) = 1 (Hanin and
    # Nica 2020), so it stays within e^4; from glorot_uniform it is 2^-50.
    model = keras.Sequential([keras.Input((256,)), *(L.Dense(256, "relu") for _ in range(50))])
    report = ik.initialize(model, "auto", np.random.default_rng(0).normal(size=(64, 256)), seed=0)
    assert report.kernels[-1].forward_before < 1e-12
    assert np.exp(-4) < report.kernels[-2].forward_after / 2 < np.exp(4)
