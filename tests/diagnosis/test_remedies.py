"""Every remedy is run as it stands: applied to a broken model, it makes it train like its sound twin."""

import keras
import numpy as np
import pytest
from remedies import codes, executes, find, run_remedy

from keras_initkit import diagnose
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.diagnosis._judge import diagnose_reports
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.signal import SignalReport

pytestmark = pytest.mark.slow

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.standard_normal((1024, 16)).astype("float32")
Y = (X @ RNG.standard_normal((16, 4))).argmax(axis=1)
NORMAL, CONSTANT = keras.initializers.RandomNormal, keras.initializers.Constant


def mlp(activation="relu", optimizer=None, depth=3, **broken):
    """Hidden layers `h0`, `h1`, ... with the scale of their activation; `broken` are the options of `h1`."""
    keras.utils.set_random_seed(0)
    sound = "he_normal" if activation == "relu" else "glorot_normal"
    model = keras.Sequential([L.Input((16,))])
    for number in range(depth):
        options = {"kernel_initializer": sound, **(broken if number == 1 else {})}
        model.add(L.Dense(32, activation, name=f"h{number}", **options))
    model.add(L.Dense(4, name="head"))
    model.compile(
        optimizer or keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def accuracy(model, x=X, epochs=6):
    keras.utils.set_random_seed(1)
    model.fit(x, Y, batch_size=64, epochs=epochs, verbose=0)
    return model.evaluate(x, Y, verbose=0)[1]


FAULTS = {
    "symmetric_units": (lambda: mlp(kernel_initializer="ones"), X),
    "initializer_mismatch": (lambda: mlp(kernel_initializer=NORMAL(stddev=60.0)), X),
    "dead_units": (lambda: mlp(bias_initializer=CONSTANT(-60.0)), X),
    "saturated_units": (lambda: mlp("tanh", bias_initializer=CONSTANT(30.0)), X),
    "rank_collapse": (lambda: mlp(kernel_initializer=NORMAL(stddev=0.2)), X),
    "unscaled_input": (lambda: mlp("tanh"), 200 + 300 * X),
}


@pytest.mark.one_backend
@executes(*FAULTS)
@pytest.mark.parametrize("kind", FAULTS)
def test_the_remedy_of_a_probe_brings_the_model_to_its_sound_twin(kind):
    build, x = FAULTS[kind]
    model = build()
    if kind == "rank_collapse":
        model.get_layer("h1").kernel.assign(np.outer(RNG.standard_normal(32), RNG.standard_normal(32)) / 4)
    found = find(kind, diagnose(model, x, Y))
    in_place = [code.startswith(("keras_initkit", "x = ")) for code in codes(found)].index(True)
    x = run_remedy(found, in_place, model=model, x=x)["x"]
    activation = "tanh" if kind in ("saturated_units", "unscaled_input") else "relu"
    assert accuracy(model, x) > 0.95 * accuracy(mlp(activation))


@pytest.mark.one_backend
def test_five_saturated_layers_are_mended_by_the_first_remedy():
    model = mlp("tanh", depth=5)
    for layer in model.layers[:-1]:
        layer.kernel.assign(2 * RNG.standard_normal(layer.kernel.shape))
    run_remedy(find("saturated_units", diagnose(model, X, Y)), model=model, x=X)
    assert accuracy(model) > 0.95 * accuracy(mlp("tanh", depth=5))


def trained(optimizer, epochs=1):
    """A model after a run with a rate that does not do, and what was found in it."""
    model = mlp(optimizer=optimizer)
    callback = LayerStatsCallback(None, "batch", on_finding=lambda finding: None)
    model.fit(X, Y, batch_size=64, epochs=epochs, verbose=0, callbacks=[callback])
    return model, callback.findings


@pytest.mark.one_backend
@executes("update_too_large")
def test_a_rate_that_is_too_large_is_lowered_once():
    model, findings = trained(keras.optimizers.SGD(5.0, momentum=0.9))
    run_remedy(find("update_too_large", findings), model=model)
    assert 0.05 * (1 - 1e-6) <= float(model.optimizer.learning_rate) <= 0.5
    assert accuracy(model) > 0.95 * accuracy(mlp(optimizer=keras.optimizers.SGD(0.05, momentum=0.9)))
    advised = {code for each in findings for code in codes(each) if "learning_rate" in code}
    assert len(advised) == 1  # one rate, one piece of advice


@pytest.mark.one_backend
@executes("update_too_small")
def test_a_rate_that_is_too_small_is_raised():
    model, findings = trained(keras.optimizers.Adam(3e-9))
    run_remedy(find("update_too_small", findings), model=model)
    sound = mlp(optimizer=keras.optimizers.Adam(1e-3))
    assert accuracy(model, epochs=15) > 0.95 * accuracy(sound, epochs=15)


@executes("nonfinite")
def test_data_that_are_not_finite_are_left_out():
    x = X[:32].copy()
    x[3, 2] = np.nan
    found = next(each for each in diagnose(mlp(), x) if each.kind == "nonfinite")
    assert run_remedy(found, x=x)["x"].shape == (31, 16)


@executes("nonfinite")
def test_weights_that_are_not_finite_are_drawn_again():
    model = mlp()
    model.get_layer("h1").bias.assign(np.full(32, np.nan))
    run_remedy(find("nonfinite", diagnose(model, X[:32])), model=model)
    assert all(np.isfinite(keras.ops.convert_to_numpy(weight)).all() for weight in model.weights)


class Stop(L.Layer):
    """A layer that lets no gradient through."""

    def call(self, x):
        return keras.ops.stop_gradient(x)


class Part(L.Layer):
    """A layer of which one part gets no gradient."""

    def __init__(self):
        super().__init__(name="part")
        self.used, self.cut = L.Dense(8, name="used"), L.Dense(8, name="cut")

    def call(self, x):
        return self.used(x) + keras.ops.stop_gradient(self.cut(x))


@pytest.mark.parametrize("nested", [True, False])
def test_the_layer_of_a_remedy_is_found_at_any_depth(nested):
    keras.utils.set_random_seed(0)
    inputs = L.Input((16,))
    cut = Part()(inputs) if nested else Stop()(L.Dense(8, name="cut")(inputs))
    model = keras.Model(inputs, L.Dense(2)(L.Add()([cut, L.Dense(8)(inputs)])))
    run_remedy(find("frozen_weights", diagnose(model, X[:32])), model=model)
    assert len(model.trainable_weights) == len(model.weights) - 2
    assert not [each for each in diagnose(model, X[:32]) if each.kind == "frozen_weights"]


def test_a_batch_without_gradient_freezes_nothing_and_three_with_one_do():
    model = mlp()
    model.fit(X[:64], Y[:64], verbose=0)
    callback = LayerStatsCallback(None, "batch", on_finding="ignore")
    model.fit(X[:256], Y[:256], sample_weight=np.zeros(256), batch_size=64, verbose=0, callbacks=[callback])
    context = ModelContext(model)
    silent = [SignalReport(report.rows, step) for step, report in enumerate(callback.reports)]

    def frozen(*reports):
        return {each.layer: each.confidence for each in diagnose_reports(reports, context) if "frozen" in each.kind}

    assert frozen(*silent) == {}
    long = [SignalReport(silent[0].rows, step) for step in range(10)]
    assert frozen(*long) == dict.fromkeys(["h0", "h1", "h2", "head"], pytest.approx(11 / 12))
    model.fit(X[:256], Y[:256], batch_size=64, verbose=0, callbacks=[callback])
    flowing = callback.reports[-3:]
    assert frozen(*silent, *flowing) == {}
    dead = [
        SignalReport(
            tuple(row for row in report.rows if row.tap != ("weight_gradient", "h1", None, ""))
            + tuple(row for row in silent[0].rows if row.tap == ("weight_gradient", "h1", None, "")),
            report.step,
        )
        for report in flowing
    ]
    assert frozen(*dead[:2]) == {}
    assert frozen(*dead) == {"h1": pytest.approx(0.8)}
