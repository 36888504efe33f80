"""Labels and data: which fit a head and its loss, on hand-made arrays."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import losses

from keras_initkit.diagnosis import diagnose
from keras_initkit.diagnosis.task._label_facts import Labels, describe_inputs

pytestmark = pytest.mark.one_backend

RNG = np.random.default_rng(0)
X = RNG.standard_normal((48, 6)).astype("float32")
CLASSES = RNG.permutation(np.arange(48) % 4)
ONE_HOT = np.eye(4, dtype="float32")[CLASSES]
POSITIVE = (X[:, :1] > 0).astype("float32")
DATA = ("label_mismatch", "target_out_of_range", "constant_input", "unshuffled_labels")


def model_of(units, activation=None, loss="mse", shape=(6,), hidden=True):
    layers = [L.Dense(8, "relu", name="hidden")] if hidden else []
    model = keras.Sequential([keras.Input(shape), *layers, L.Dense(units, activation, name="head")])
    model.compile("sgd", loss)
    return model


def found(model, x, y):
    return [each for each in diagnose(model, x, y) if each.kind in DATA]


def kinds(model, y, x=X):
    return [(each.kind, each.severity) for each in found(model, x, y)]


SPARSE, CATEGORICAL, BINARY = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"


@pytest.mark.parametrize(
    ("units", "activation", "loss", "y", "severity", "code"),
    [
        (4, "softmax", SPARSE, CLASSES, None, ""),
        (4, "softmax", SPARSE, CLASSES + 1, "error", "y = y - 1"),
        (3, "softmax", SPARSE, CLASSES, "error", "Dense(4, 'softmax')"),
        (4, "softmax", SPARSE, CLASSES * 5, "error", "np.unique"),
        (4, "softmax", SPARSE, CLASSES + 0.5, "error", ""),
        (4, "softmax", SPARSE, ONE_HOT, "error", "CategoricalCrossentropy"),
        (4, "softmax", CATEGORICAL, CLASSES, "error", "SparseCategoricalCrossentropy"),
        (4, "softmax", CATEGORICAL, 2 * ONE_HOT - 1, "error", "(y + 1) / 2"),
        (4, "sigmoid", BINARY, ONE_HOT, "warning", "CategoricalCrossentropy"),
        (4, "sigmoid", BINARY, np.maximum(ONE_HOT, ONE_HOT[::-1]), None, ""),
        (4, "softmax", CATEGORICAL, np.maximum(ONE_HOT, ONE_HOT[::-1]), "warning", "BinaryCrossentropy"),
        (4, "softmax", CATEGORICAL, 0.9 * ONE_HOT + 0.025, None, ""),
        (1, "sigmoid", BINARY, POSITIVE, None, ""),
        (1, "sigmoid", BINARY, POSITIVE[:, 0], None, ""),
        (1, "sigmoid", BINARY, 2 * POSITIVE - 1, "error", "(y + 1) / 2"),
        (1, "sigmoid", BINARY, POSITIVE + 1, "error", "(y - 1)"),
        (1, "sigmoid", BINARY, 255 * POSITIVE, "error", "y / 255"),
        (1, "sigmoid", BINARY, CLASSES, "error", "Dense(4, 'softmax')"),
        (1, "tanh", "hinge", 2 * POSITIVE - 1, None, ""),
        (1, None, "mse", X[:, 0], None, ""),
        (1, None, "mse", X[:, :2], "error", "Dense(2, 'linear')"),
        (3, None, "mse", X[:, 0], "error", "Dense(1, 'linear')"),
        (1, "sigmoid", BINARY, 1 - 0 * POSITIVE, "info", ""),
    ],
)
def test_label_mismatch(units, activation, loss, y, severity, code):
    result = found(model_of(units, activation, loss), X, y)
    assert [(each.kind, each.severity) for each in result] == ([("label_mismatch", severity)] if severity else [])
    assert not severity or code in result[0].remedy


def test_ignored_classes_and_examples_without_weight_do_not_count():
    ignoring = losses.SparseCategoricalCrossentropy(ignore_class=255)
    assert kinds(model_of(4, "softmax", ignoring), np.where(CLASSES == 0, 255, CLASSES)) == []
    labels = Labels(np.array([[1.0], [9.0], [0.0]]), np.array([1.0, 0.0, 1.0]))
    assert labels.limits == (0.0, 1.0)
    per_position = Labels(np.array([[1, 7], [0, 1]]), np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert per_position.classes.tolist() == [0.0, 1.0]


def test_labels_of_an_example_before_outputs_of_positions_are_repeated_in_silence():
    x = RNG.standard_normal((16, 5, 6)).astype("float32")
    (finding,) = found(model_of(1, shape=(5, 6)), x, x[:, 0, :1])
    assert (finding.kind, finding.severity) == ("label_mismatch", "error")
    assert "repeats" in finding.message
    assert "return_sequences=False" in finding.remedy


class Difference(losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


class Reshaped(losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.square(keras.ops.reshape(y_true, (-1, 1)) - y_pred)


def difference(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    ("loss", "metrics", "severity"),
    [
        ("mse", [], None),
        (difference, [], None),  # Keras gives a function labels with as many axes as the outputs
        (Difference(), [], "error"),
        (Reshaped(), [], None),
        ("mse", ["mae", keras.metrics.MeanSquaredError(), losses.mean_squared_error], None),
        ("mse", [difference], "warning"),
    ],
)
def test_labels_of_one_axis_that_a_loss_or_metric_repeats(loss, metrics, severity):
    model = model_of(1, None, loss)
    model.compile("sgd", loss, metrics=metrics)
    assert kinds(model, X[:, :1]) == []
    assert kinds(model, X[:, 0]) == ([("label_mismatch", severity)] if severity else [])
    if severity:  # what is claimed: each label is compared with all predictions
        predictions = keras.ops.convert_to_numpy(model(X))
        value = model.evaluate(X, X[:, 0], batch_size=48, verbose=0, return_dict=True)[
            "difference" if metrics else "loss"
        ]
        assert value == pytest.approx(np.square(X[:, 0] - predictions).mean(), rel=1e-4)
        assert "y = y.reshape(-1, 1)" in found(model, X, X[:, 0])[0].remedy


def test_labels_of_two_axes_beside_outputs_of_one():
    given = keras.Input((6,))
    model = keras.Model(given, L.Reshape(())(L.Dense(1, name="head")(given)))
    model.compile("sgd", Difference())
    assert kinds(model, X[:, 0]) == []
    (finding,) = found(model, X, X[:, :1])
    assert finding.severity == "error"
    assert "y = y.reshape(-1)" in finding.remedy


def test_the_other_findings_come_beside_labels_that_do_not_fit():
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, "tanh", kernel_initializer="zeros"), L.Dense(4, "softmax")])
    model.compile("sgd", SPARSE)
    assert {each.kind for each in diagnose(model, X, CLASSES + 3)} >= {"label_mismatch", "symmetric_units"}


@pytest.mark.parametrize(
    ("activation", "y", "severity"),
    [
        ("sigmoid", 100 * POSITIVE, "error"),
        ("tanh", 0.5 * X[:, :1] / abs(X[:, :1]).max(), None),
        ("tanh", np.where(np.arange(48)[:, None] == 0, 1.2, np.sin(9 * X[:, :1])), "warning"),
        ("relu", X[:, :1], "error"),
        ("relu", abs(X[:, :1]), None),
        ("softplus", abs(X[:, :1]), None),
        (None, 1e6 * X[:, :1], None),
    ],
)
def test_target_out_of_range(activation, y, severity):
    expected = [("target_out_of_range", severity)] if severity else []
    assert kinds(model_of(1, activation), y) == expected


def test_targets_of_a_crossentropy_are_probabilities():
    y = RNG.random((48, 6)).astype("float32")
    model = model_of(6, "sigmoid", BINARY)
    assert kinds(model, y) == []
    assert kinds(model, y * 3) == [("target_out_of_range", "error")]


@pytest.mark.parametrize(
    ("change", "severity"),
    [
        (lambda x: 0 * x, "error"),
        (lambda x: np.repeat(x[:1], len(x), 0), "error"),
        (lambda x: np.concatenate([x[:, :5], 0 * x[:, 5:]], 1), None),
        (lambda x: np.where(np.arange(6) == 2, np.nan, x), "error"),
    ],
)
def test_constant_input(change, severity):
    result = [each for each in found(model_of(1), change(X), X[:, :1]) if each.kind == "constant_input"]
    assert [each.severity for each in result] == ([severity] if severity else [])
    if result and "columns" in result[0].evidence:
        assert result[0].evidence["first_column"] == 2


def test_one_example_is_no_constant():
    assert not describe_inputs([X[:1]])[0].is_constant


@pytest.mark.parametrize(("number", "severity"), [(99, "info"), (100, "warning")])
def test_labels_that_are_all_the_same_may_lack_a_rare_class(number, severity):
    x, y = RNG.standard_normal((number, 6)).astype("float32"), np.zeros((number, 1))
    (finding,) = found(model_of(1, "sigmoid", BINARY), x, y)
    assert (finding.severity, finding.confidence) == (severity, 1 - 1 / (number + 2))
    assert ("A rare class" in finding.message) == (severity == "info")


def test_sorted_labels():
    model = model_of(4, "softmax", SPARSE)
    assert kinds(model, np.sort(CLASSES)) == [("unshuffled_labels", "info")]
    assert kinds(model, CLASSES) == []


def linear_findings(*layers, shape=(6,)):
    model = keras.Sequential([keras.Input(shape), *layers])
    return [(each.layer, each.severity) for each in diagnose(model) if each.kind == "linear_stack"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (lambda: [L.Dense(16, name="a"), L.Dense(3)], "warning"),
        (lambda: [L.Dense(16, name="a"), L.Dropout(0.5), L.BatchNormalization(), L.Dense(3, "softmax")], "warning"),
        (lambda: [L.Dense(16, "relu"), L.Dense(16, name="a"), L.Dense(3)], "info"),
        (lambda: [L.Dense(16, name="a"), L.ReLU(), L.Dense(3)], None),
        (lambda: [L.Dense(16, name="a"), L.LayerNormalization(), L.Dense(3)], None),
        (lambda: [L.Dense(2, name="a"), L.Dense(6)], None),
        (lambda: [L.Dense(3, name="a")], None),
        (lambda: [L.Dense(16, name="a"), L.Reshape((2, 8)), L.LSTM(4), L.Dense(1)], None),
    ],
)
def test_linear_stack(layers, expected):
    assert linear_findings(*layers()) == ([("a", expected)] if expected else [])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (lambda: [L.Conv2D(8, 3, name="a"), L.Conv2D(8, 3), L.Flatten(), L.Dense(2)], True),
        (lambda: [L.Conv2D(8, 3, name="a"), L.MaxPooling2D(), L.Conv2D(8, 3, activation="relu")], False),
        (lambda: [L.Conv2D(8, (1, 3), name="a"), L.Conv2D(8, (3, 1))], False),
        (lambda: [L.DepthwiseConv2D(3, name="a"), L.Conv2D(8, 1)], False),
    ],
)
def test_linear_stack_of_convolutions(layers, expected):
    assert bool(linear_findings(*layers(), shape=(8, 8, 3))) == expected
