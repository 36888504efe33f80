"""Faults of every room, probed, repaired and met while training: what each backend has to show the rules.

The rules themselves read reports, which look the same on all backends; the other files test them on one.
"""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_initkit import LayerStatsCallback, diagnose, repair

RNG = np.random.default_rng(0)
X = RNG.standard_normal((64, 16)).astype("float32")
Y = RNG.permutation(np.arange(64) % 3)
FAR = keras.initializers.Constant(-30.0)


def mlp(*hidden, head=3, activation="softmax", loss="sparse_categorical_crossentropy"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16,)), *hidden, L.Dense(head, activation, name="head")])
    model.compile("sgd", loss)
    return model


def not_a_number():
    model = mlp(L.Dense(16, "relu"), L.Dense(16, "relu", name="b"))
    values = np.array(keras.ops.convert_to_numpy(model.layers[1].kernel))
    values[0, 0] = np.nan
    model.layers[1].kernel.assign(values)
    return model


def relu(**options):
    return L.Dense(32, "relu", **options)


FAULTS = {
    "raw data": (lambda: mlp(L.Dense(32, "tanh", name="a")), 100 * X + 300, Y, ("unscaled_input", "a", "error")),
    "equal units": (
        lambda: mlp(relu(), relu(kernel_initializer="ones", name="a")),
        X,
        Y,
        ("symmetric_units", "a", "error"),
    ),
    "dead units": (lambda: mlp(relu(), relu(bias_initializer=FAR, name="a")), X, Y, ("dead_units", "a", "error")),
    "not a number": (not_a_number, X, Y, ("nonfinite", "b", "error")),
    "one softmax": (
        lambda: mlp(relu(), head=1, loss="binary_crossentropy"),
        X,
        (Y[:, None] > 1).astype("float32"),
        ("softmax_of_one", "head", "error"),
    ),
    "classes from one": (lambda: mlp(relu()), X, Y + 1, ("label_mismatch", "head", "error")),
    "no such target": (
        lambda: mlp(relu(), head=1, activation="tanh", loss="mse"),
        X,
        5 * X[:, :1],
        ("target_out_of_range", "head", "error"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_probe_names_the_fault(fault):
    make, x, y, expected = FAULTS[fault]
    first = diagnose(make(), x, y)[0]
    assert (first.kind, first.layer, first.severity) == expected


def test_a_sound_model_has_no_findings():
    assert diagnose(mlp(relu(kernel_initializer="he_normal")), X, Y) == []


def test_a_vanishing_gradient_is_seen_from_both_sides():
    model = mlp(*[L.Dense(32, "sigmoid") for _ in range(9)])
    assert "vanishing_gradient" in {finding.kind for finding in diagnose(model, X, Y)}


@pytest.mark.parametrize("fault", ["equal units", "dead units"])
def test_repair_takes_it_away(fault):
    make, x, y, (kind, layer, _) = FAULTS[fault]
    model = make()
    repair(model, diagnose(model, x, y), x, y)
    assert (kind, layer) not in {(finding.kind, finding.layer) for finding in diagnose(model, x, y)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", ["raw data", "equal units", "dead units", "no such target"])
def test_a_run_names_the_fault(fault):
    make, x, y, (kind, layer, _) = FAULTS[fault]
    callback = LayerStatsCallback(None, update_freq=1, on_finding=lambda finding: None)
    make().fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[callback])
    assert (kind, layer) in {(finding.kind, finding.layer) for finding in callback.findings}
