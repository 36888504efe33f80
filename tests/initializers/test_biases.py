"""Biases: the probabilities, gates and spans that they stand for."""

import keras
import numpy as np
import pytest
from helpers import values
from scipy import stats

from keras_initkit.initializers import ChronoBias, CriticalBias, PriorProbabilityBias, UnitForgetGateBias
from keras_initkit.theory import critical_point


def test_critical_bias():
    sigma_b = critical_point("tanh", q=1.0).sigma_b
    sample = values(CriticalBias("tanh", q=1.0, seed=0)((20_000,)))
    assert sample.std() == pytest.approx(sigma_b, rel=5 / np.sqrt(2 * sample.size))
    assert stats.kstest(sample, stats.norm(0, sigma_b).cdf).pvalue > 1e-4
    assert not values(CriticalBias("relu")((7,))).any()


def test_prior_of_a_sigmoid():
    layer = keras.layers.Dense(4, "sigmoid", bias_initializer=PriorProbabilityBias(0.02))
    np.testing.assert_allclose(values(layer(np.zeros((1, 3)))), 0.02, rtol=1e-5)
    several = PriorProbabilityBias((0.5, 0.1, 1e-6))
    np.testing.assert_allclose(values(keras.ops.sigmoid(several((3,)))), [0.5, 0.1, 1e-6], rtol=1e-5)
    assert values(several((2, 3))).shape == (2, 3)


@pytest.mark.parametrize("frequencies", [[900, 90, 10], (0.9, 0.09, 0.01), np.array([1800, 180, 20])])
def test_prior_of_a_softmax(frequencies):
    initializer = PriorProbabilityBias(frequencies, "softmax")
    layer = keras.layers.Dense(3, "softmax", bias_initializer=initializer)
    np.testing.assert_allclose(values(layer(np.zeros((1, 5))))[0], [0.9, 0.09, 0.01], rtol=1e-5)
    assert type(initializer).from_config(initializer.get_config()).get_config() == initializer.get_config()


def gates(layer):
    layer.build((None, 5, 3))
    return np.split(values(layer.cell.bias), 4)


def test_forget_gate_is_that_of_keras():
    ours = gates(keras.layers.LSTM(6, bias_initializer=UnitForgetGateBias(), unit_forget_bias=False))
    np.testing.assert_array_equal(ours, gates(keras.layers.LSTM(6, unit_forget_bias=True)))
    np.testing.assert_array_equal(values(UnitForgetGateBias(2.5)((8,))), [0, 0, 2.5, 2.5, 0, 0, 0, 0])


def test_chrono():
    input_gate, forget, cell, output = np.split(values(ChronoBias(100, seed=0)((12_000,))), 4)
    assert stats.kstest(np.exp(forget), stats.uniform(1, 98).cdf).pvalue > 1e-4
    np.testing.assert_array_equal(input_gate, -forget)
    assert not cell.any()
    assert not output.any()
    layer = keras.layers.LSTM(8, bias_initializer=ChronoBias(100, seed=0), unit_forget_bias=False)
    np.testing.assert_array_equal(np.concatenate(gates(layer)), values(ChronoBias(100, seed=0)((32,))))


def test_keras_own_forget_bias_is_told():
    layer = keras.layers.LSTM(6, bias_initializer=UnitForgetGateBias())  # asks for the gates one by one
    with pytest.raises(ValueError, match="Pass unit_forget_bias=False to the layer"):
        layer.build((None, 5, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PriorProbabilityBias(0), "probability: got 0, expected a finite number above 0 and below 1"),
        (lambda: PriorProbabilityBias(1.0), "probability: got 1.0"),
        (lambda: PriorProbabilityBias("0.1"), "probability: got '0.1'"),
        (lambda: PriorProbabilityBias([0.2, 1.5]), "probability: got 1.5"),
        (lambda: PriorProbabilityBias([3, 0], "softmax"), "probability: got 0, expected a finite number above 0"),
        (lambda: PriorProbabilityBias(0.1, "softmax"), "got 0.1 under softmax, expected a sequence of two or more"),
        (lambda: PriorProbabilityBias(0.1, "tanh"), "activation: got 'tanh', expected one of 'sigmoid', 'softmax'"),
        (lambda: PriorProbabilityBias([0.1, 0.2])((3,)), r"shape: got \(3,\) with 2 probabilities, expected 2 units"),
        (lambda: UnitForgetGateBias("one"), "value: got 'one', expected a finite number"),
        (lambda: UnitForgetGateBias()((6,)), r"shape: got \(6,\), expected \(4 \* units,\)"),
        (lambda: UnitForgetGateBias()((2, 8)), "of rank 2, expected rank 1: the bias"),
        (lambda: ChronoBias(2), "max_steps: got 2, expected a finite number above 2"),
        (lambda: ChronoBias(10, seed="a"), "seed: got 'a'"),
        (lambda: CriticalBias("tanh", sigma_b=-1), "sigma_b: got -1"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
