"""Remedies as they stand: run on the broken program, they bring it within 5 % of the sound one."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import losses
from remedies import executes, find, run_remedy

from keras_initkit.diagnosis import diagnose

pytestmark = [pytest.mark.slow, pytest.mark.one_backend]

RNG = np.random.default_rng(0)
X = RNG.standard_normal((512, 8)).astype("float32")
TWO = (X[:, :1] + X[:, 1:2] > 0).astype("float32")
CLASSES = (X[:, :4] + 0.5 * X[:, 4:]).argmax(-1)
ONE_HOT = np.eye(4, dtype="float32")[CLASSES]
RINGS = (np.square(X[:, :2]).sum(-1) > 1.4).astype("int64")
TARGET = np.tanh(X[:, :1]) + 0.5 * X[:, 1:2]
SPARSE, CATEGORICAL, BINARY = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"


def model_of(units, activation, loss, *, hidden="relu", between=()):
    keras.utils.set_random_seed(1)
    layers = [L.Dense(32, hidden, kernel_initializer="he_normal", name="hidden"), *between]
    model = keras.Sequential([keras.Input((8,)), *layers, L.Dense(units, activation, name="head")])
    model.compile(keras.optimizers.Adam(1e-2), loss)
    return model


def score(model, x, y, truth):
    """Accuracy, or the coefficient of determination, after training."""
    model.fit(x, y, batch_size=64, epochs=15, verbose=0)
    predicted = keras.ops.convert_to_numpy(model(X, training=False))
    if truth.dtype.kind == "f" and len(np.unique(truth)) > 4:
        return 1 - np.square(predicted - truth).mean() / truth.var()
    if predicted.shape[-1] == 1:
        return ((predicted > 0.5) == (truth.reshape(-1, 1) > 0)).mean()
    return (predicted.argmax(-1) == truth.ravel()).mean()


LOGITS = losses.SparseCategoricalCrossentropy(from_logits=True)
PROGRAMS = {
    "softmax of one": ("softmax_of_one", (1, "softmax", BINARY), X, TWO, (1, "sigmoid", BINARY), TWO),
    "relu and classes": ("head_loss_mismatch", (4, "relu", SPARSE), X, CLASSES, (4, "softmax", SPARSE), CLASSES),
    "no softmax": ("head_loss_mismatch", (4, None, SPARSE), X, CLASSES, (4, "softmax", SPARSE), CLASSES),
    "sigmoid and classes": ("head_loss_mismatch", (4, "sigmoid", SPARSE), X, CLASSES, (4, "softmax", SPARSE), CLASSES),
    "softmax and binary": (
        "head_loss_mismatch",
        (4, "softmax", BINARY),
        X,
        ONE_HOT,
        (4, "softmax", CATEGORICAL),
        ONE_HOT,
    ),
    "softmax twice": ("head_loss_mismatch", (4, "softmax", LOGITS), X, CLASSES, (4, "softmax", SPARSE), CLASSES),
    "one unit, classes": ("head_loss_mismatch", (1, "sigmoid", SPARSE), X, CLASSES, (4, "softmax", SPARSE), CLASSES),
    "classes from 1": ("label_mismatch", (4, "softmax", SPARSE), X, CLASSES + 1, (4, "softmax", SPARSE), CLASSES),
    "too few units": ("label_mismatch", (2, "softmax", SPARSE), X, CLASSES, (4, "softmax", SPARSE), CLASSES),
    "sparse, one-hot": ("label_mismatch", (4, "softmax", SPARSE), X, ONE_HOT, (4, "softmax", SPARSE), CLASSES),
    "one-hot, integers": ("label_mismatch", (4, "softmax", CATEGORICAL), X, CLASSES, (4, "softmax", SPARSE), CLASSES),
    "sigmoids, one-hot": ("label_mismatch", (4, "sigmoid", BINARY), X, ONE_HOT, (4, "softmax", CATEGORICAL), ONE_HOT),
    "labels -1 and 1": ("label_mismatch", (1, "sigmoid", BINARY), X, 2 * TWO - 1, (1, "sigmoid", BINARY), TWO),
    "beyond tanh": ("target_out_of_range", (1, "sigmoid", "mse"), X, TARGET, (1, None, "mse"), TARGET),
    "NaN in a column": (
        "constant_input",
        (1, None, "mse"),
        np.where((np.arange(512)[:, None] < 5) & (np.arange(8) == 2), np.nan, X).astype("float32"),
        TARGET,
        (1, None, "mse"),
        TARGET,
    ),
}


@executes(*(kind for kind, *_ in PROGRAMS.values()))
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_remedy_makes_the_program_sound(name):
    kind, broken, x, y, sound, truth = PROGRAMS[name]
    check(kind, model_of(*broken), x, y, model_of(*sound), truth)


def check(kind, model, x, y, sound, truth):
    finding = next(each for each in diagnose(model, x, y) if each.kind == kind)
    scope = run_remedy(finding, model=model, x=x, y=y)
    expected = score(sound, X, truth, _target(truth))
    assert score(scope["model"], scope["x"], scope["y"], _target(truth)) > 0.95 * expected, finding.remedy
    assert expected > 0.8


def _target(truth):
    return truth.argmax(-1) if truth.shape[-1] == 4 else truth


@executes("linear_stack")
def test_an_activation_for_a_stack_of_linear_layers():
    check("linear_stack", model_of(2, "softmax", SPARSE, hidden=None), X, RINGS, model_of(2, "softmax", SPARSE), RINGS)


@executes("normalization_of_one")
def test_a_normalization_of_one_unit_is_left_out():
    between = [L.Dense(1), L.LayerNormalization(name="norm")]
    broken = model_of(1, "sigmoid", BINARY, between=between)
    check("normalization_of_one", broken, X, TWO, model_of(1, "sigmoid", BINARY, between=[L.Dense(1)]), TWO)


@executes("head_loss_mismatch")
def test_a_dropout_behind_the_predictions_is_left_out():
    broken = model_of(1, None, "mse")
    broken.add(L.Dropout(0.5, name="last"))
    broken.compile(keras.optimizers.Adam(1e-2), "mse")
    check("head_loss_mismatch", broken, X, TARGET, model_of(1, None, "mse"), TARGET)


@executes("unshuffled_labels")
def test_sorted_data_are_shuffled():
    order = np.argsort(CLASSES, kind="stable")
    finding = find("unshuffled_labels", diagnose(model_of(4, "softmax", SPARSE), X[order], CLASSES[order]))
    scope = run_remedy(finding, x=X[order], y=CLASSES[order])
    assert not any(each.kind == "unshuffled_labels" for each in diagnose(model_of(4, "softmax", SPARSE), X, scope["y"]))
    scores = []
    for x, y in ((X, CLASSES), (scope["x"], scope["y"])):
        model = model_of(4, "softmax", SPARSE)
        model.fit(x, y, batch_size=64, epochs=15, shuffle=False, verbose=0)
        scores.append((keras.ops.convert_to_numpy(model(X)).argmax(-1) == CLASSES).mean())
    assert scores[1] > 0.95 * scores[0] > 0.7


@executes("batch_norm_lag")
def test_averages_that_lag_behind():
    def lagging():
        return model_of(1, None, "mse", between=[L.BatchNormalization(name="bn")])

    x, y = 30 * X[:, :8], TARGET
    model = lagging()
    model.fit(x, y, batch_size=256, epochs=5, verbose=0)
    finding = next(each for each in diagnose(model, x[:256], y[:256]) if each.kind == "batch_norm_lag")
    fresh = lagging()
    run_remedy(finding, model=fresh)
    fresh.fit(x, y, batch_size=256, epochs=5, verbose=0)
    assert not any(each.kind == "batch_norm_lag" for each in diagnose(fresh, x[:256], y[:256]))
    training = keras.ops.convert_to_numpy(fresh(x, training=True))
    assert np.abs(training - keras.ops.convert_to_numpy(fresh(x, training=False))).mean() < 0.2 * training.std()
