"""Where theory is too uncertain, prediction goes on from what was measured, and says so."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_initkit.prediction import InputMoments, predict
from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._resuming import is_by_chance, is_doubtful, moved_to
from keras_initkit.prediction.algebra._signals import Gradient, Signal, UnpredictableError
from keras_initkit.prediction.operation_rules._normalize import _FAR, normalize
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._tap import Tap

L = keras.layers
pytestmark = pytest.mark.one_backend


def alike(correlation, **changes):
    flat = Autocorrelation.white(1.0, correlation, 0)
    return Signal(**{"mean": 0.0, "second_moment": 1.0, "within_example": flat, "gaussian": True,
                     "between_examples": Autocorrelation.white(correlation, correlation, 0), **changes})  # fmt: skip


def test_a_few_units_that_are_alike_are_left_to_chance():
    """2 / n is the relative variance of the mean square of n Gaussian units: 112 are within 1.3 in 95 % of draws."""
    squares = (np.random.default_rng(0).standard_normal((20_000, 112)) ** 2).mean(axis=1)
    assert np.mean(np.abs(np.log(squares)) < np.log(1.3)) == pytest.approx(0.95, abs=0.01)
    assert is_by_chance(alike(1.0), 111)
    assert not is_by_chance(alike(1.0), 112)
    assert is_by_chance(alike(0.5), 27)
    assert not is_by_chance(alike(0.5), 28)
    assert not is_by_chance(alike(0.0), 1)
    assert not is_by_chance(alike(1.0, gaussian=False), 2)


def test_what_is_left_to_chance_resumes_from_what_was_measured():
    model = keras.Sequential([
        keras.Input((64,)), L.Dense(8, name="few"), L.Dense(256, name="many", kernel_initializer="lecun_normal"),
    ])  # fmt: skip
    same = Autocorrelation.white(1.0, 1.0, 0)
    moments = InputMoments(0.0, 1.0, 32, same, same)
    alone = predict(model, moments)
    assert alone.unpredicted == {}
    few, many = Tap("output", "few", 0), Tap("output", "many", 0)
    resumed = predict(model, moments, measured={few: SimpleNamespace(mean=0.2, variance=2.0)})
    assert "few units are much alike" in resumed.unpredicted["few"]
    assert few not in resumed
    scale = np.mean(keras.ops.convert_to_numpy(model.layers[1].kernel.value).astype("float64") ** 2)
    assert resumed[many] == Expected(0.0, pytest.approx(8 * scale * 2.04))
    assert few in alone
    assert Tap("input_gradient", "few", 0) in resumed  # its rule still holds, but not for what comes before


def test_correlations_are_moved_to_what_was_measured():
    guess, seen = alike(0.5), Signal(1.0, 3.0)
    assert moved_to(guess, seen)["between_examples"].zero == pytest.approx(1.0 + 2.0 * 0.5)


def test_a_gradient_that_passed_many_normalizations_resumes_with_a_note():
    assert is_doubtful(Gradient(1.0, doubt=0.14))
    assert not is_doubtful(Gradient(1.0, doubt=0.13))
    x = inputs = keras.Input((64,))
    for place in range(4):
        x = L.BatchNormalization(name=f"norm{place}")(L.Dense(64, use_bias=False, name=f"dense{place}")(x))
    model = keras.Model(inputs, x)
    taps = [Tap("output_gradient", f"dense{place}", 0) for place in range(4)]
    few, many = InputMoments(examples=32), InputMoments(examples=512)
    measured = dict.fromkeys(taps, SimpleNamespace(mean=0.0, variance=7.0))
    plain = predict(model, few)
    assert set(taps) < set(plain)
    assert predict(model, many, measured=measured).unpredicted == {}
    found = predict(model, few, measured=measured)
    ((path, reason),) = found.unpredicted.items()
    assert path == "dense1"  # each normalization over 32 examples adds 2 / 32: the third is too much
    assert reason.startswith("backward: few examples or units")
    assert set(taps) - set(found) == {taps[1]}
    ratio = plain[taps[0]].variance / plain[taps[1]].variance
    assert found[taps[0]].variance == pytest.approx(7.0 * ratio)


def test_unknown_means_of_a_mean_square_near_epsilon():
    layer = SimpleNamespace(epsilon=1e-3, gamma=None, beta=None)
    far, near = Signal(0.0, 1.01 * _FAR * 1e-3), Signal(0.0, 0.99 * _FAR * 1e-3)
    expected = normalize(layer, far, np.nan, np.nan, 0.0).output.second_moment
    least = 0.1 * far.second_moment
    assert expected / (least / (least + 1e-3)) < 1.3
    with pytest.raises(UnpredictableError, match="near its epsilon"):
        normalize(layer, near, np.nan, np.nan, 0.0)


@pytest.mark.parametrize("dropped", [0.0, 0.2])
def test_what_drops_whole_examples_adds_a_binomial_doubt(dropped):
    drop = L.Dropout(dropped, noise_shape=(None, 1), name="drop")
    model = keras.Sequential([keras.Input((64,)), L.Dense(64, name="dense"), drop])
    tap = Tap("output_gradient", "dense", 0)
    measured = {tap: SimpleNamespace(mean=0.0, variance=7.0)}
    found = predict(model, InputMoments(examples=10), measured=measured)
    assert (tap in found) == (dropped == 0)  # sqrt(0.2 / (0.8 * 10)) is 0.16
    assert tap in predict(model, InputMoments(examples=20), measured=measured)
