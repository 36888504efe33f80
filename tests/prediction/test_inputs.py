"""Moments of data against sums over explicit pairs, and predictions from real images."""

import keras
import numpy as np
import pytest

from keras_initkit.prediction import InputMoments, predict
from keras_initkit.statistics._tap import Tap


def test_products_by_lag_are_those_of_explicit_pairs():
    x = np.random.default_rng(0).normal(0.5, 1.0, (5, 4, 3, 2)).cumsum(axis=1)
    moments = InputMoments.from_array(x)
    assert (moments.mean, moments.variance) == (pytest.approx(x.mean()), pytest.approx(x.var()))
    for down in range(-3, 4):
        for right in range(-2, 3):
            first = x[:, max(0, -down) : 4 - max(0, down), max(0, -right) : 3 - max(0, right)]
            second = x[:, max(0, down) : 4 - max(0, -down), max(0, right) : 3 - max(0, -right)]
            lag = [np.array(down), np.array(right)]
            assert moments.same.at(lag) == pytest.approx((first * second).mean())
            pairs = [(first[i] * second[j]).mean() for i in range(5) for j in range(5) if i != j]
            assert moments.other.at(lag) == pytest.approx(np.mean(pairs))


def test_inputs_by_name_order_and_pair():
    inputs = [keras.Input((64,), name=name) for name in ("a", "b")]
    model = keras.Model(inputs, keras.layers.Concatenate(name="join")(inputs))
    for given in ([(1.0, 2.0), (0.0, 4.0)], {"a": (1.0, 2.0), "b": InputMoments(0.0, 4.0)}):
        mean, variance = predict(model, given)[Tap("output", "join", 0)]
        assert (mean, variance) == (0.5, pytest.approx(3.25))
    assert predict(model, {"b": (0.0, 4.0)})[Tap("output", "join", 0)].variance == 2.5
    assert predict(model, (0.0, 9.0))[Tap("output", "join", 0)].variance == 9.0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough for a prediction")
def test_smooth_images_keep_their_correlations():
    """Images of few low frequencies: a mean over neighbours leaves them nearly as they are."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(24.0), np.arange(24.0), indexing="ij"), -1)
    waves = rng.normal(0, 0.25, (32, 2, 8))
    x = np.cos(grid @ waves[:, None] + rng.uniform(0, 2 * np.pi, (32, 1, 1, 8))).astype("float32")
    ratios, moments = [], InputMoments.from_array(x)
    for seed in range(6):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [
                keras.Input((24, 24, 8)),
                keras.layers.Conv2D(256, 3, activation="tanh", name="conv", kernel_initializer="he_normal"),
                keras.layers.AveragePooling2D(4, name="pool"),
                keras.layers.GlobalAveragePooling2D(name="global"),
            ]
        )
        prediction = predict(model, moments)
        ratio, value = [], x
        for layer in model.layers:
            value = layer(value)
            mean, variance = prediction[Tap("output", layer.name, 0)]
            ratio.append(np.mean(np.square(value, dtype="float64")) / (variance + mean**2))
        ratios.append(ratio)
    mean, error = np.mean(ratios, axis=0), np.std(ratios, axis=0, ddof=1) / np.sqrt(6)
    assert np.all(np.abs(mean - 1) < 4 * error + 0.05), mean
