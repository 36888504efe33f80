"""Quantized layers are measured where Keras calls them; their codes are no weights."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initkit import predict, probe
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.structure._weights import main_weights

GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((64, 8)).astype("float32")
Y = GENERATOR.standard_normal((64, 1)).astype("float32")


def made(mode, rank=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,)), *[layers.Dense(16, "relu", name=name) for name in "ab"], layers.Dense(1, name="c")]
    )
    if rank:
        model.get_layer("b").enable_lora(rank)
    if mode:
        try:
            model.get_layer("b").quantize(mode)
        except (ValueError, NotImplementedError) as error:
            pytest.skip(f"this Keras has no {mode}: {error}")
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("mode", ["int8", pytest.param("int4", marks=pytest.mark.one_backend), "float8"])
def test_outputs_are_measured_and_codes_are_not(mode):
    usual, report = probe(made(None), X, Y), probe(made(mode), X, Y)
    for name, tolerance in (("activation_variance", 0.3), ("pre_activation_variance", 0.3)):
        assert report.statistic(name)["b"] == pytest.approx(usual.statistic(name)["b"], rel=tolerance)
    names = {row.tap.name for row in report.rows if row.tap[:2] == ("weight", "b")}
    assert names == ({"kernel", "bias"} if mode == "float8" else {"bias"})
    behind = next(row for row in report.rows if row.tap[:2] == ("output", "c"))
    if behind.predicted is not None:
        assert 0.2 < behind.predicted.variance / behind.moments.variance < 5
    if mode != "float8":
        assert "quantized" in predict(made(mode)).unpredicted["b"]


@pytest.mark.parametrize("mode", ["int8", pytest.param("float8", marks=pytest.mark.one_backend)])
def test_a_training_step_reads_the_same(mode):
    stats = LayerStatsCallback(None, "batch", on_finding="ignore")
    made(mode).fit(X, Y, verbose=0, callbacks=[stats])
    usual = LayerStatsCallback(None, "batch", on_finding="ignore")
    made(None).fit(X, Y, verbose=0, callbacks=[usual])
    read, expected = stats.reports[0], usual.reports[0]
    assert read.statistic("activation_variance")["b"] == pytest.approx(
        expected.statistic("activation_variance")["b"], rel=0.3
    )
    weights = read.statistic("weight_variance")
    assert ("b" in weights) == (mode == "float8")
    assert weights["a"] == pytest.approx(expected.statistic("weight_variance")["a"], rel=1e-6)


def test_factors_that_are_added_to_a_kernel_are_weights():
    model = made(None, rank=2)
    report = probe(model, X, Y)
    rows = {row.tap.name: row for row in report.rows if row.tap[:2] == ("weight", "b")}
    assert set(rows) == {"kernel", "bias", "lora_kernel_a", "lora_kernel_b"}
    trained = {row.tap.name for row in report.rows if row.tap[:2] == ("weight_gradient", "b")}
    assert trained == {"bias", "lora_kernel_a", "lora_kernel_b"} or trained == {"lora_kernel_a", "lora_kernel_b"}
    quantized = made("int8", rank=2).get_layer("b")
    assert sorted(weight.name for weight in main_weights(quantized)) == ["lora_kernel_a", "lora_kernel_b"]
