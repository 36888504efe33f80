"""Distributions of the scaling family: standard deviation, Kolmogorov-Smirnov, the published formula."""

import math

import keras
import numpy as np
import pytest
from helpers import values
from scipy import stats

from keras_initkit.initializers import ActivationScaling, Critical, DepthScaling, RandomWalk, Siren
from keras_initkit.theory import critical_point, gain

SHAPE = (400, 300)  # fan-in 400


def assert_drawn_from(sample, frozen):
    """Standard deviation within five standard errors, and the whole distribution by Kolmogorov-Smirnov."""
    kurtosis = frozen.stats("k") + 3
    error = math.sqrt((kurtosis - 1) / (4 * sample.size))
    assert sample.std() == pytest.approx(frozen.std(), rel=5 * error)
    assert abs(sample.mean() - frozen.mean()) < 5 * frozen.std() / math.sqrt(sample.size)
    assert stats.kstest(sample, frozen.cdf).pvalue > 1e-4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("initializer", "stddev"),
    [
        (RandomWalk("linear", seed=1), math.exp(1 / 800) / 20),
        (RandomWalk("relu", seed=1), math.sqrt(2) * math.exp(1.2 / 397.6) / 20),
        (DepthScaling(8, seed=1), 1 / math.sqrt(2 * 8 * 400)),
        (DepthScaling(12, width=2500, seed=1), 0.02 / math.sqrt(24)),
        (DepthScaling(8, "small", width=100, seed=1), 0.1),
        (DepthScaling(8, "wang", seed=1), 2 / (8 * 20)),
        (Critical("relu", seed=1), math.sqrt(2 / 400)),
        (Critical("tanh", seed=1), 1 / 20),
        (Critical("tanh", q=1.0, seed=1), 1.4674136 / 20),
    ],
)
def test_normal(initializer, stddev, dtype):
    assert_drawn_from(values(initializer(SHAPE, dtype)).ravel(), stats.norm(0, stddev))


@pytest.mark.parametrize(
    ("initializer", "limit"),
    [
        (Siren(seed=1), math.sqrt(6 / 400) / 30),
        (Siren(omega_0=10, seed=1), math.sqrt(6 / 400) / 10),
        (Siren(first=True, omega_0=10, seed=1), 1 / 400),
        (DepthScaling(2, distribution="uniform", seed=1), math.sqrt(3) / 40),
    ],
)
def test_uniform(initializer, limit):
    sample = values(initializer(SHAPE)).ravel()
    assert np.abs(sample).max() <= limit * (1 + 1e-6)
    assert_drawn_from(sample, stats.uniform(-limit, 2 * limit))


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "selu"])
def test_compromise_is_the_mean_of_the_second_moments(activation):
    sample = values(ActivationScaling(activation, direction="compromise", seed=1)(SHAPE)).ravel()
    forward, backward = gain(activation) ** -2, gain(activation, "backward") ** -2
    stddev = math.sqrt(2 / (forward + backward) / 400)
    assert sample.std() == pytest.approx(stddev, rel=0.01)  # 6.8 standard errors of a truncated normal
    between = sorted([gain(activation), gain(activation, "backward")])
    assert between[0] - 1e-12 <= math.sqrt(2 / (forward + backward)) <= between[1] + 1e-12


def log_norm_drift(activation, initializer, width, depth, repeats):
    """Mean and standard error of the change of log |gradient| over a deep narrow network, in float64."""
    rng = np.random.default_rng(0)
    stddev = math.sqrt(initializer.variance((width, width)))
    changes = []
    for _ in range(repeats):
        gradient = rng.normal(size=width)
        gradient /= np.linalg.norm(gradient)
        change = 0.0
        for _ in range(depth):
            gradient = rng.normal(size=(width, width)) @ gradient * stddev
            if activation == "relu":
                gradient = gradient * (rng.random(width) < 0.5)
            norm = np.linalg.norm(gradient)
            gradient, change = gradient / norm, change + math.log(norm)
        changes.append(change)
    return np.mean(changes), np.std(changes) / math.sqrt(repeats)


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_random_walk_does_not_drift(activation):
    width, depth = 40, 100
    drift, error = log_norm_drift(activation, RandomWalk(activation), width, depth, 100)
    assert abs(drift) < 5 * error + 0.06  # the published fit for relu is good to 6e-4 a layer
    he, error = log_norm_drift(activation, ActivationScaling(activation, mode="fan_in"), width, depth, 100)
    assert he < -depth / (2 * width) + 5 * error


def test_critical_network_keeps_signal_and_gradient():
    """30 layers of width 500, tanh at q = 1: variance of pre-activations and gradient norm, in float64."""
    rng = np.random.default_rng(0)
    sigma_w, sigma_b, q = critical_point("tanh", q=1.0)
    h = rng.normal(size=(20, 500)) * math.sqrt(q)
    gradient = rng.normal(size=(20, 500))
    start = (gradient**2).mean()
    for _ in range(30):
        weight = rng.normal(size=(500, 500)) * sigma_w / math.sqrt(500)
        gradient = (gradient * (1 - np.tanh(h) ** 2)) @ rng.normal(size=(500, 500)) * sigma_w / math.sqrt(500)
        h = np.tanh(h) @ weight + rng.normal(size=500) * sigma_b
    assert (h**2).mean() == pytest.approx(q, rel=0.15)
    assert 0.4 < (gradient**2).mean() / start < 2.5  # chi_1 of 0.95 or 1.05 would give 0.21 or 4.3


def test_siren_keeps_its_distributions_through_depth():
    """Variance 1 in the second layer, then v = 1 - exp(-2 v): E[sin(z)^2] = (1 - exp(-2 v)) / 2, weights 2 / n."""
    x = np.random.default_rng(0).uniform(-1, 1, size=(2000, 1)).astype("float32")
    layers = [keras.layers.Dense(512, use_bias=False, kernel_initializer=Siren(first=i == 0, seed=i)) for i in range(6)]
    h, variance = x, None
    for layer in layers:
        z = 30 * keras.ops.convert_to_numpy(layer(h))
        h = np.sin(z)
        if variance is not None:
            assert (z**2).mean() == pytest.approx(variance, rel=0.12)
        variance = 1.0 if variance is None else 1 - math.exp(-2 * variance)
    assert variance == pytest.approx(0.797, rel=0.01)


def test_second_projections_of_attention():
    """EinsumDense of Keras 3.15 rebuilds the initializer with the axes of its kernel."""
    layer = keras.layers.MultiHeadAttention(4, 16, kernel_initializer=DepthScaling(2))
    layer.build((1, 5, 64), (1, 5, 64))
    kernel = values(layer.output_dense.kernel)  # (4, 16, 64): 64 inputs
    fan_in = 64 if "input_axes" in keras.initializers.HeNormal().get_config() or keras.__version__ >= "3.15" else None
    if fan_in is None:
        pytest.skip("this Keras does not tell the axes")
    assert kernel.std() == pytest.approx(1 / math.sqrt(4 * fan_in), rel=5 / math.sqrt(2 * kernel.size))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActivationScaling(direction="up"), "direction: got 'up', expected one of 'forward', 'backward', 'com"),
        (lambda: RandomWalk("tanh"), "activation: got 'tanh', expected one of 'relu', 'linear'"),
        (lambda: DepthScaling(0), "n_layers: got 0, expected a positive integer"),
        (lambda: DepthScaling(2.5), "n_layers: got 2.5"),
        (lambda: DepthScaling(rule="big"), "rule: got 'big', expected one of 'residual', 'small', 'wang'"),
        (lambda: DepthScaling(width=0), "width: got 0"),
        (lambda: DepthScaling(distribution="normal"), "distribution: got 'normal', expected one of"),
        (lambda: Critical("tanh", sigma_b=0.1, q=1.0), "sigma_b, q: got 0.1 and 1.0, expected one of them"),
        (lambda: Critical("relu", sigma_b=0.1), "sigma_b: got 0.1, with which relu has no stable critical point"),
        (lambda: Critical("softmax"), "softmax does not act on each element by itself"),
        (lambda: Siren(first="yes"), "first: got 'yes', expected True or False"),
        (lambda: Siren(omega_0=-1), "omega_0: got -1, expected a finite number above 0"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
