"""Mean-field predictions against networks of Keras' own layers, width 1024 and depth 50.

Fluctuations are predicted too, so that tolerances need no measurement: with independent Gaussian weights, and given a
layer's input, its n pre-activations are independent Gaussians, so that a mean over units has the variance 1 / n of one
unit's, and the next layers carry it on by the slope of their map.
"""

import math

import keras
import numpy as np
import pytest
from scipy.special import digamma, polygamma
from scipy.stats import binom, chi2

from keras_initkit.theory import correlation_map, variance_map

pytestmark = pytest.mark.slow

WIDTH, DEPTH = 1024, 50


def orthonormal(count, seed):
    """`count` orthogonal inputs of mean square 1."""
    draw = np.random.default_rng(seed).standard_normal((WIDTH, count))
    return (np.linalg.qr(draw)[0].T * math.sqrt(WIDTH)).astype("float32")


def dense(activation, variance, seed, sigma_b=0.0, distribution="untruncated_normal"):
    return keras.layers.Dense(
        WIDTH,
        activation,
        kernel_initializer=keras.initializers.VarianceScaling(variance, "fan_in", distribution, seed=seed),
        bias_initializer=keras.initializers.RandomNormal(0.0, sigma_b, seed=seed + 1) if sigma_b else "zeros",
    )


def run(activation, sigma_w, sigma_b, seed, inputs, distribution="untruncated_normal"):
    """Mean squares, and the first two examples' correlation, of every layer's output: (depth,), (depth,)."""
    squares, correlations, h = [], [], inputs
    for layer in range(DEPTH):
        h = dense(activation, sigma_w**2, 10_000 * seed + 2 * layer, sigma_b, distribution)(h)
        values = keras.ops.convert_to_numpy(h).astype("float64")
        squares.append(np.mean(values[0] ** 2))
        if len(values) > 1:
            correlations.append(values[0] @ values[1] / math.sqrt(np.sum(values[0] ** 2) * np.sum(values[1] ** 2)))
    return np.array(squares), np.array(correlations)


def log_of_relu_layer(n):
    """Mean and variance of ln(2/n sum relu(z)^2), exactly: chi^2 of k degrees of freedom, k ~ Binomial(n, 1/2)."""
    k = np.arange(1, n + 1)
    share = binom.pmf(k, n, 0.5)
    mean = share @ digamma(k / 2)
    variance = share @ polygamma(1, k / 2) + share @ (digamma(k / 2) - mean) ** 2
    return mean + math.log(4 / n), variance


@pytest.fixture(scope="module")
def relu_networks():
    """Six He-normal networks; two orthogonal inputs of pre-activation variance 1 each."""
    runs = [run("relu", math.sqrt(2), 0.0, seed, orthonormal(2, seed) / math.sqrt(2)) for seed in range(6)]
    return [np.stack(each) for each in zip(*runs, strict=True)]


def test_relu_log_variance_at_every_layer(relu_networks):
    """The mean of ln q_l falls by 5 / (2n) a layer, its variance grows by 5 / n: four standard errors of that."""
    logs = np.log(2 * relu_networks[0])
    drift, spread = log_of_relu_layer(WIDTH)
    depth = np.arange(1, DEPTH + 1)
    assert (np.abs(logs.mean(axis=0) - drift * depth) < 4 * np.sqrt(spread * depth / len(logs))).all()
    # 300 independent layers: their log ratios' variance, within the central 99.99 % of its chi^2 distribution.
    ratios = np.diff(logs, axis=1, prepend=0) - drift
    low, high = chi2.interval(0.9999, ratios.size)
    assert low < np.sum(ratios**2) / spread < high


def test_relu_fluctuation_is_5_over_width():
    assert log_of_relu_layer(WIDTH) == pytest.approx((-5 / 2 / WIDTH, 5 / WIDTH), rel=6 / WIDTH)
    inputs, ratios = orthonormal(128, 0), []  # orthogonal inputs have independent pre-activations
    for seed in range(16):
        outputs = keras.ops.convert_to_numpy(dense("relu", 1.0, seed)(inputs)).astype("float64")
        ratios.append(np.log(2 * np.mean(outputs**2, axis=1)))
    drift, spread = log_of_relu_layer(WIDTH)
    ratios = np.array(ratios).ravel()
    assert abs(ratios.mean() - drift) < 4 * math.sqrt(spread / ratios.size)
    # Four relative standard errors, sqrt(2 / 2048), of a variance: 12.5 %, so neither 4 nor 6 would pass for 5.
    assert np.var(ratios) == pytest.approx(5 / WIDTH, rel=4 * math.sqrt(2 / ratios.size))


def test_relu_correlation_at_every_layer(relu_networks):
    """Orthogonal inputs become alike as M iterated says; noise of each layer by the delta method."""
    z, w = np.random.default_rng(0).standard_normal((2, 100_000))
    step, c, variance = correlation_map("relu", math.sqrt(2)), 0.0, 0.0
    for layer, measured in enumerate(relu_networks[1].T):
        after = step(c)
        u, v = np.maximum(z, 0), np.maximum(c * z + math.sqrt(1 - c * c) * w, 0)
        noise = np.var(2 * u * v - after * (u**2 + v**2)) / WIDTH
        slope = (step(c + 1e-4) - step(c - 1e-4)) / 2e-4 if c < 0.999 else 1.0
        variance, c = slope**2 * variance + noise, after
        assert abs(measured.mean() - c) < 4 * math.sqrt(variance / len(measured)), f"layer {layer}"


@pytest.mark.parametrize(("sigma_w", "sigma_b"), [(1.0, 0.0), (1.3, 0.2)], ids=["critical", "chaotic"])
def test_tanh_variance_at_every_layer(sigma_w, sigma_b):
    """The mean over four networks within four standard errors, both from the variance map and its slope."""
    logs = np.log([run("tanh", sigma_w, sigma_b, seed, orthonormal(1, seed), "uniform")[0] for seed in range(4)])
    step, q, spread = variance_map("tanh", sigma_w, sigma_b), sigma_w**2 + sigma_b**2, 0.0
    z, weights = np.polynomial.hermite_e.hermegauss(80)
    weights /= math.sqrt(2 * math.pi)
    for layer in range(DEPTH):
        square = (step(q) - sigma_b**2) / sigma_w**2
        powers = np.tanh(math.sqrt(q) * z) ** 2
        slope = weights @ (powers * (z**2 - 1)) / (2 * q)
        spread = slope**2 * spread + (weights @ powers**2 - square**2) / WIDTH
        error = math.sqrt(spread / len(logs)) / square
        assert abs(logs[:, layer].mean() - math.log(square)) < 4 * error, f"layer {layer}"
        q, spread = step(q), sigma_w**4 * spread
