"""A loss that a model adds itself is the loss of a probe without labels, if the model trains by it alone."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit import diagnose, probe
from keras_initkit.structure._calls import calls

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.standard_normal((32, 8)).astype("float32"), GENERATOR.integers(0, 2, (32, 1)).astype("float32")


class Endpoint(layers.Layer):
    def call(self, logits, targets):
        self.add_loss(ops.mean(ops.softplus(logits) - targets * logits))
        return ops.sigmoid(logits)


class Divergence(layers.Layer):
    def call(self, x):
        self.add_loss(1e-3 * ops.mean(ops.square(x)))
        return x


def endpoint():
    keras.utils.set_random_seed(0)
    inputs, targets = keras.Input((8,)), keras.Input((1,))
    logits = layers.Dense(1, name="head")(layers.Dense(4, "tanh", name="hidden")(inputs))
    return keras.Model([inputs, targets], Endpoint()(logits, targets))


def autoencoder(**options):
    keras.utils.set_random_seed(0)
    code = Divergence()(layers.Dense(4, "relu", name="encoder")(inputs := keras.Input((8,))))
    return keras.Model(inputs, layers.Dense(8, name="decoder", **options)(code))


def gradients(model, *data, **options):
    return probe(model, *data, **options).statistic("weight_gradient_variance")


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_those_of_the_added_loss(compiled):
    model = endpoint()
    if compiled:
        model.compile("adam")
    report = probe(model, [X, Y], training=False)
    assert "The gradients are those of the loss that the model itself adds (`add_loss`)." in report.notes
    assert not any("drawn from N(0, 1)" in note for note in report.notes)
    plain = keras.Model(model.inputs[0], model.get_layer("head").output)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    expected = gradients(plain, X, Y, loss=loss, training=False)
    assert report.statistic("weight_gradient_variance") == pytest.approx(expected, rel=1e-4)
    assert all(row.predicted is None for row in report.rows if "gradient" in row.tap.kind)
    assert any(row.predicted is not None for row in report.rows)
    assert not [finding for finding in diagnose(model, [X, Y]) if finding.kind == "frozen_weights"]


def test_a_loss_of_a_part_is_not_the_models():
    model = autoencoder()
    report = probe(model, X)
    assert any("drawn from N(0, 1)" in note for note in report.notes)
    assert report.statistic("weight_gradient_variance")["decoder"] > 1e-3
    assert len(calls(model)[-1].losses) == 1
    whole, with_loss = gradients(autoencoder(), X, X, loss="mse"), autoencoder()
    with_loss.compile("sgd", "mse")
    assert gradients(with_loss, X, X) == pytest.approx(whole, rel=1e-5)


def test_a_model_with_a_loss_of_labels_needs_them():
    model = endpoint()
    model.compile("sgd", "mse")
    assert any("drawn from N(0, 1)" in note for note in probe(model, [X, Y]).notes)


def test_regularizers_are_no_loss_of_the_model():
    model = autoencoder(activity_regularizer="l2", kernel_regularizer="l2")
    assert any("drawn from N(0, 1)" in note for note in probe(model, X).notes)
    alone = keras.Sequential([keras.Input((8,)), layers.Dense(3), layers.ActivityRegularization(0.1)])
    assert any("drawn from N(0, 1)" in note for note in probe(alone, X).notes)
    assert calls(alone)[-1].losses == ()
