"""Advice on the learning rate and the optimizer, run on models that Keras cannot serialize or that scale their loss."""

import keras
import numpy as np
import pytest
from remedies import executes, find, run_remedy

from keras_initkit import diagnose
from keras_initkit.callbacks import LayerStatsCallback

pytestmark = pytest.mark.one_backend
L, SGD = keras.layers, keras.optimizers.SGD
RNG = np.random.default_rng(0)
X = RNG.standard_normal((256, 8)).astype("float32")
Y = (X @ RNG.standard_normal((8, 1))).astype("float32")


def train(optimizer, loss="mse", epochs=1):
    """A model after a run, and what was found."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((8,)), L.Dense(16, "relu", name="a"), L.Dense(1, name="head")])
    model.compile(optimizer, loss, metrics=["mae"])
    callback = LayerStatsCallback(None, "batch", on_finding=lambda finding: None)
    model.fit(X, Y, batch_size=32, epochs=epochs, verbose=0, callbacks=[callback])
    return model, callback


def scaled(inner):
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)


def own_loss(y, predicted):
    return keras.ops.mean(keras.ops.square(y - predicted))


SCHEDULE = keras.optimizers.schedules.ExponentialDecay
RATES = {
    "a loss that is a lambda": ("update_too_large", SGD(30.0), lambda y, predicted: own_loss(y, predicted)),
    "a scaled loss": ("update_too_large", scaled(SGD(30.0)), "mse"),
    "a schedule": ("update_too_large", SGD(SCHEDULE(30.0, 1000, 0.9)), "mse"),
    "a slow schedule": ("update_too_small", SGD(SCHEDULE(3e-9, 1000, 0.9)), "mse"),
}


@executes("update_too_large", "update_too_small")
@pytest.mark.parametrize("name", RATES)
def test_a_rate_is_changed_whatever_the_loss_and_the_optimizer(name):
    kind, optimizer, loss = RATES[name]
    model, callback = train(optimizer, loss)
    found = find(kind, callback.findings)
    run_remedy(found, model=model)
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    if kind == "update_too_large":
        assert found.step == 0
        assert 0.3 * 0.98 <= rate <= 3.0  # a hundredth to a tenth; the schedule has fallen by 0.1 %
    else:
        assert rate > 1e-6
    assert type(model.optimizer) is type(optimizer)
    assert model.loss is loss
    history = model.fit(X, Y, batch_size=32, verbose=0).history
    assert np.isfinite([*history["loss"], *history["mae"]]).all()


@pytest.mark.slow
@executes("update_too_small")
def test_an_optimizer_that_scales_each_step_trains_what_stood_still():
    def build(weight):
        """Two heads, one of which has next to no weight in the loss."""
        keras.utils.set_random_seed(0)
        inputs = L.Input((8,))
        hidden = [L.Dense(units, "relu", name=name)(inputs) for name, units in (("a", 8), ("b", 64))]
        heads = L.Dense(1, name="first")(hidden[0]), L.Dense(1, "sigmoid", name="second")(hidden[1])
        model = keras.Model(inputs, heads)
        model.compile(SGD(0.02), ["mse", "binary_crossentropy"], loss_weights=[1.0, weight])
        return model

    model, y = build(2e-5), [Y, Y > 0]
    callback = LayerStatsCallback(None, "batch", on_finding=lambda finding: None)
    model.fit(X, y, batch_size=32, verbose=0, callbacks=[callback])
    found = find("update_too_small", callback.findings)
    assert "learning rate by" not in found.remedy
    run_remedy(found, model=model)
    right = []
    for each in (model, build(1.0)):
        each.fit(X, y, batch_size=16, epochs=16, verbose=0)
        right.append(((keras.ops.convert_to_numpy(each(X)[1]) > 0.5) == y[1]).mean())
    assert right[0] > 0.95 * right[1] > 0.8


class Run:
    """Reports of a run, without the model."""

    def __init__(self, reports):
        self.reports = reports


@executes("update_too_large")
def test_without_the_model_the_code_bears_a_schedule_too():
    model, callback = train(SGD(SCHEDULE(30.0, 1000, 0.9)))
    run_remedy(find("update_too_large", diagnose(Run(callback.reports))), model=model)
    assert 0.3 * 0.98 <= float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) <= 3.0
