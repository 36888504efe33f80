"""The figure of a prediction: theory's numbers, from where the signal enters."""

import keras
import numpy as np
import pytest

from keras_initkit.prediction import Prediction, predict
from keras_initkit.statistics._tap import Tap

L = keras.layers


def model():
    keras.utils.set_random_seed(0)
    hidden = [L.Conv2D(32, 3, strides=2, padding="same", activation="relu", name=f"conv_{i}") for i in range(3)]
    return keras.Sequential([keras.Input((16, 16, 8)), *hidden, L.Flatten(), L.Dense(10, name="head")])


def test_lines_are_what_is_predicted():
    expected = predict(model())
    forward, backward = expected.plot(layers=["conv_*", "head"]).axes
    variances = [expected[Tap("output", name, 0)].variance for name in ("conv_0", "conv_1", "conv_2", "head")]
    np.testing.assert_allclose(forward.lines[0].get_ydata(), np.divide(variances, variances[0]))
    elements = np.array([8 * 8 * 32, 4 * 4 * 32, 2 * 2 * 32, 10])
    taps = [Tap("output_gradient", name, 0) for name in ("conv_0", "conv_1", "conv_2", "head")]
    squares = elements * [expected[tap].variance for tap in taps]
    np.testing.assert_allclose(backward.lines[0].get_ydata(), squares / squares[-1])
    assert [label.get_text() for label in backward.get_xticklabels()] == ["conv_0", "conv_1", "conv_2", "head"]


def test_nothing_predicted_is_an_error():
    with pytest.raises(ValueError, match="plot: nothing is predicted, since it has no rule"):
        Prediction({}, {"own": "it has no rule"}).plot()
    with pytest.raises(ValueError, match="layers: got 'cov_0', which matches no layer of the report; there is conv_0"):
        predict(model()).plot(layers="cov_0")
