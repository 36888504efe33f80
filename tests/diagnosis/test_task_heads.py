"""Heads and losses: which pairs fit, on models of every style, without training."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import losses

from keras_initkit.diagnosis import diagnose
from keras_initkit.diagnosis.task._heads import describe_activation, find_heads
from keras_initkit.diagnosis.task._losses import describe_loss, find_losses
from keras_initkit.structure._patterns import gathered_calls

RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 6)).astype("float32")
IS_TENSORFLOW = keras.backend.backend() == "tensorflow"


def model_of(*head, loss="mse", shape=(6,)):
    model = keras.Sequential([keras.Input(shape), L.Dense(8, "relu"), *head])
    model.compile("sgd", loss)
    return model


def found(model, x=X, y=None):
    kinds = ("softmax_of_one", "head_loss_mismatch", "normalization_of_one")
    return [(each.kind, each.layer, each.severity) for each in diagnose(model, x, y) if each.kind in kinds]


def written_sigmoid(x):
    return 1 / (1 + keras.ops.exp(-x))


@pytest.mark.parametrize(
    ("function", "name", "limits"),
    [
        (keras.activations.softmax, "softmax", (0, 1)),
        (keras.ops.softmax, "softmax", (0, 1)),
        (L.Softmax(), "softmax", (0, 1)),
        (written_sigmoid, "sigmoid", (0, 1)),
        (lambda x: keras.ops.maximum(x, 0), "relu", (0, np.inf)),
        (L.ReLU(6.0), "relu", (0, 6)),
        (keras.activations.log_softmax, "log_softmax", (-np.inf, 0)),
        (keras.activations.linear, "linear", (-np.inf, np.inf)),
    ],
)
def test_activations_are_known_by_what_they_compute(function, name, limits):
    known, reached = describe_activation(function)
    assert reached == limits
    assert known == name or isinstance(function, L.ReLU)


def nested():
    inner = keras.Sequential([keras.Input((8,)), L.Dense(3, "softmax", name="last")], name="inner")
    given = keras.Input((6,))
    return keras.Model(given, inner(L.Dense(8)(given)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.last = L.Dense(8, "relu"), L.Dense(3, name="last")

    def build(self, shape):
        self.hidden.build(shape)
        self.last.build((None, 8))
        self.built = True

    def call(self, x):
        return keras.ops.softmax(self.last(self.hidden(x)))


def subclassed():
    model = Subclassed()
    model.build((None, 6))
    return model


@pytest.mark.parametrize(
    ("make", "activations"),
    [
        (lambda: model_of(L.Dense(3), L.Activation("softmax")), ["softmax"]),
        (lambda: model_of(L.Dense(3, "sigmoid"), L.Reshape((3, 1))), ["sigmoid"]),
        (lambda: model_of(L.Dense(3, "sigmoid"), L.Rescaling(10.0)), [""]),
        (lambda: model_of(L.Dense(3), L.Rescaling(10.0)), ["linear"]),
        (lambda: model_of(L.Dense(3), L.Lambda(written_sigmoid)), ["sigmoid"]),
        (nested, ["softmax"]),
        (subclassed, ["softmax"]),
        (lambda: model_of(L.Reshape((2, 4)), L.TimeDistributed(L.Dense(3, "softmax"))), ["softmax"]),
        (lambda: model_of(L.Reshape((2, 4)), L.LSTM(3)), ["tanh"]),
        (lambda: model_of(L.Reshape((2, 4)), L.Bidirectional(L.GRU(3))), ["tanh"]),
    ],
)
def test_the_head_is_what_the_trace_shows(make, activations):
    assert [head.activation for head in find_heads(gathered_calls(make()))] == activations


def test_several_outputs_have_heads_and_losses_each():
    given = keras.Input((6,))
    model = keras.Model(given, {"b": L.Dense(1, name="b")(given), "a": L.Dense(3, "softmax", name="a")(given)})
    assert [(head.path, head.units) for head in find_heads(gathered_calls(model))] == [("a", 3), ("b", 1)]
    model.compile("sgd", {"a": "sparse_categorical_crossentropy", "b": "mse"})
    assert [describe_loss(each).kind for each in find_losses(model, None, ["a", "b"])] == [
        "sparse_categorical",
        "regression",
    ]
    model.compile("sgd", {"a": "sparse_categorical_crossentropy", "b": "binary_crossentropy"})
    y = {"a": np.arange(32) % 3, "b": (X[:, :1] > 0).astype("float32")}
    assert found(model, X, y) == [("head_loss_mismatch", "b", "error")]


@pytest.mark.parametrize("loss", [lambda y, p: keras.ops.mean(y - p), ["mse", "mae"], losses.CTC(), None])
def test_other_losses_are_left_alone(loss):
    assert describe_loss(loss) is None


CROSSENTROPY = losses.SparseCategoricalCrossentropy


@pytest.mark.parametrize(
    ("units", "activation", "loss", "expected"),
    [
        (3, "softmax", "sparse_categorical_crossentropy", None),
        (3, "sigmoid", "sparse_categorical_crossentropy", "error"),
        (3, "relu", "sparse_categorical_crossentropy", "error"),
        (3, None, "sparse_categorical_crossentropy", "error"),
        (3, "tanh", "categorical_crossentropy", "error"),
        (3, "exponential", "categorical_crossentropy", None),
        (3, None, CROSSENTROPY(from_logits=True), None),
        (3, "log_softmax", CROSSENTROPY(from_logits=True), None),
        (3, "softmax", CROSSENTROPY(from_logits=True), "warning" if IS_TENSORFLOW else "error"),
        (3, "relu", CROSSENTROPY(from_logits=True), "error"),
        (1, "sigmoid", "sparse_categorical_crossentropy", "error"),
        (1, "sigmoid", "binary_crossentropy", None),
        (1, "hard_sigmoid", "binary_crossentropy", None),
        (1, None, "binary_crossentropy", "error"),
        (1, "tanh", "binary_crossentropy", "error"),
        (1, "relu", losses.BinaryFocalCrossentropy(), "error"),
        (1, "sigmoid", losses.BinaryCrossentropy(from_logits=True), "warning" if IS_TENSORFLOW else "error"),
        (3, "softmax", "binary_crossentropy", "warning"),
        (3, "softmax", "kl_divergence", None),
        (3, "relu", "kl_divergence", "error"),
        (1, "exponential", "poisson", None),
        (1, None, "poisson", "error"),
        (1, "relu", "mse", None),
        (1, "tanh", "hinge", None),
    ],
)
def test_which_activations_fit_which_losses(units, activation, loss, expected):
    model = model_of(L.Dense(units, activation, name="head"), loss=loss)
    assert found(model) == ([("head_loss_mismatch", "head", expected)] if expected else [])


BINARY, SPARSE = "binary_crossentropy", "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    ("first", "second", "units", "loss", "expected"),
    [
        ("softmax", "softmax", 10, SPARSE, "error"),  # at most e / (e + 9) = 0.23
        ("sigmoid", "softmax", 10, SPARSE, "error"),
        ("softmax", "softmax", 2, SPARSE, "error"),  # 0.73
        ("tanh", "softmax", 10, SPARSE, "error"),  # e^2 / (e^2 + 9) = 0.45
        ("tanh", "softmax", 2, SPARSE, "warning"),  # 0.88
        ("relu", "softmax", 10, SPARSE, None),
        (lambda z: 30 * keras.ops.tanh(z / 30), "softmax", 10, SPARSE, None),
        ("sigmoid", "sigmoid", 1, BINARY, "error"),  # 0.5 to 0.73
        ("relu", "sigmoid", 1, BINARY, "error"),  # no probability below 0.5
        ("tanh", "sigmoid", 1, BINARY, "warning"),  # 0.27 to 0.73
        (None, "sigmoid", 1, BINARY, None),
    ],
)
def test_logits_that_an_activation_bounds(first, second, units, loss, expected):
    model = model_of(L.Dense(units, first, name="head"), L.Activation(second, name="last"), loss=loss)
    assert found(model) == ([("head_loss_mismatch", "last", expected)] if expected else [])


@pytest.mark.parametrize("units", [2, 10])
def test_the_largest_probability_that_bounded_logits_leave(units):
    logits = np.zeros(units)
    logits[0] = 1.0
    largest = np.exp(logits[0]) / np.exp(logits).sum()
    model = model_of(L.Dense(units, "softmax", name="head"), L.Softmax(name="last"), loss=SPARSE)
    (finding,) = diagnose(model, X)
    assert finding.message == (
        f"last applies a softmax to the softmax of head, whose limits leave no probability above {largest:.2g}."
    )
    exec("\n".join(finding.remedy.splitlines()[1:]), {"model": model, "keras": keras})  # as it is printed
    assert found(model) == []


@pytest.mark.parametrize(("axis", "expected"), [(1, "error"), (0, "error"), (-1, None), (2, None)])
def test_a_softmax_over_another_axis(axis, expected):
    model = model_of(L.Dense(5, name="head"), L.Softmax(axis, name="last"), loss=SPARSE, shape=(4, 6))
    mismatch = [("head_loss_mismatch", "last", expected)] if expected else []
    assert found(model, RNG.standard_normal((8, 4, 6))) == mismatch


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("shape", [(6,), (4, 6)])
def test_softmax_of_one(separate, shape):
    head = [L.Dense(1, name="head"), L.Activation("softmax", name="softmax")]
    model = model_of(*(head if separate else [L.Dense(1, "softmax", name="head")]), shape=shape)
    layer = "softmax" if separate else "head"
    assert found(model, np.ones((2, *shape))) == [("softmax_of_one", layer, "error")]


def test_a_softmax_over_positions_is_not_over_one():
    assert found(model_of(L.Dense(1), L.Softmax(axis=1), shape=(4, 6)), np.ones((2, 4, 6))) == []


@pytest.mark.parametrize(
    ("between", "severity"),
    [
        ([L.Dense(3, "softmax"), L.Dropout(0.5)], "error"),
        ([L.Dense(3, "softmax"), L.Dropout(0.0)], None),
        ([L.Dense(3), L.BatchNormalization(), L.Softmax()], "warning"),
        ([L.BatchNormalization(), L.Dense(3), L.Softmax()], None),
    ],
)
def test_nothing_stands_between_the_logits_and_the_loss(between, severity):
    model = model_of(*[layer.from_config(layer.get_config()) for layer in between], loss="categorical_crossentropy")
    assert [each for *_, each in found(model)] == ([severity] if severity else [])


def test_a_loss_that_the_model_computes_itself_is_left_alone():
    class Own(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(keras.ops.square(y - y_pred))

    model = Own([keras.Input((6,)), L.Dense(3, "relu")])
    model.compile("sgd", "categorical_crossentropy")
    assert found(model) == []


@pytest.mark.parametrize(
    ("norm", "units", "expected"),
    [
        (L.LayerNormalization, 1, "error"),
        (L.LayerNormalization, 2, None),
        (lambda: L.GroupNormalization(4), 4, "error"),
        (lambda: L.GroupNormalization(2), 4, None),
        (lambda: L.GroupNormalization(-1), 3, "error"),
        (L.BatchNormalization, 1, None),
    ],
)
def test_normalization_of_one(norm, units, expected):
    layer = norm()
    model = model_of(L.Dense(units), layer, L.Dense(2))
    assert found(model) == ([("normalization_of_one", layer.name, expected)] if expected else [])
