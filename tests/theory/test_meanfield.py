"""Variance and correlation maps, fixed points and phases against closed forms, Monte Carlo and plain iteration."""

import math

import keras
import numpy as np
import pytest
from scipy import optimize

from keras_initkit.theory import (
    chi_1,
    correlation_map,
    covariance,
    critical_point,
    depth_scale,
    expectation,
    fixed_point,
    phase,
    variance_map,
)

SINGLE = keras.backend.backend() == "jax"  # computes in float32 unless told otherwise
CLOSE = 1e-5 if SINGLE else 1e-8
NEAR_ONE = 1 - np.logspace(-1, -9, 17)
CORRELATIONS = np.concatenate([np.linspace(-1, 1, 81), NEAR_ONE, -NEAR_ONE])


def arc_cosine(c):
    """E[relu(u) relu(v)], Cho and Saul 2009, n = 1."""
    return (np.sqrt(1 - c**2) + c * (np.pi - np.arccos(c))) / (2 * np.pi)


def bump(x):
    """Its variance map falls: E[f^2] = 1 / sqrt(1 + 20 q)."""
    return keras.ops.exp(-5 * x * x)


def arc_sine(c, q):
    """E[erf(u) erf(v)], Williams 1997, for weights of variance 1."""
    return 2 / np.pi * np.arcsin(2 * q * c / (1 + 2 * q))


@pytest.mark.parametrize("q", [0.1, 1.0, 30.0])
def test_covariance_of_relu_erf_and_linear(q):
    c = CORRELATIONS
    np.testing.assert_allclose(covariance("relu", c, q), q * arc_cosine(c), atol=1e-6 * q / 2, rtol=0)
    np.testing.assert_allclose(covariance(keras.ops.erf, c, q), arc_sine(c, q), atol=1e-6, rtol=0)
    np.testing.assert_allclose(covariance("linear", c, q), q * c, atol=1e-6 * q, rtol=0)


def test_covariance_of_a_leaky_relu_and_of_a_kink_off_the_grid():
    c = CORRELATIONS
    leaky = keras.layers.LeakyReLU(0.1)  # 0.1 x + 0.9 relu(x); E[x relu(y)] = c / 2
    np.testing.assert_allclose(covariance(leaky, c), 0.01 * c + 0.09 * c + 0.81 * arc_cosine(c), atol=1e-6, rtol=0)
    kinked = covariance(lambda x: keras.ops.relu(x - 0.7312), np.array([0.0, 1.0]))
    density, above = math.exp(-(0.7312**2) / 2) / math.sqrt(2 * math.pi), math.erfc(0.7312 / math.sqrt(2)) / 2
    mean, square = density - 0.7312 * above, (1 + 0.7312**2) * above - 0.7312 * density
    np.testing.assert_allclose(kinked, [mean**2, square], atol=1e-6 * square)


def test_covariance_of_a_jump_is_good_to_four_digits():
    np.testing.assert_allclose(
        covariance(keras.ops.sign, CORRELATIONS), 2 / np.pi * np.arcsin(CORRELATIONS), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("name", ["elu", "gelu", "selu", "silu", "softplus", "tanh"])
def test_covariance_by_monte_carlo(name):
    """Five standard errors of a mean over 200,000 pairs."""
    random = np.random.default_rng(1)
    z, w = random.standard_normal((2, 200_000))
    f = lambda x: keras.ops.convert_to_numpy(keras.activations.get(name)(keras.ops.convert_to_tensor(x)))  # noqa: E731
    for q, c in [(0.5, -0.6), (1.0, 0.3), (4.0, 0.95)]:
        u, v = math.sqrt(q) * z, math.sqrt(q) * (c * z + math.sqrt(1 - c * c) * w)
        products = (f(u) * f(v)).astype("float64")
        error = 5 * products.std() / math.sqrt(len(products))
        assert abs(covariance(name, c, q) - products.mean()) < error


def test_expectation_of_powers_means_and_derivatives():
    """relu and its square, from the moments of a truncated normal; a product with the density at 0 elsewhere."""
    from scipy.stats import norm

    mean, stddev = 0.4, 1.3
    ratio = mean / stddev
    first = mean * norm.cdf(ratio) + stddev * norm.pdf(ratio)
    second = (mean**2 + stddev**2) * norm.cdf(ratio) + mean * stddev * norm.pdf(ratio)
    at = {"mean": mean, "variance": stddev**2}
    assert expectation("relu", 1, **at) == pytest.approx(first, rel=CLOSE)
    assert expectation("relu", 2, **at) == pytest.approx(second, rel=CLOSE)
    assert expectation("relu", 4) == pytest.approx(1.5, rel=CLOSE)
    assert expectation("relu", 1, derivative=True, **at) == pytest.approx(norm.cdf(ratio), rel=CLOSE)
    assert expectation("tanh", 1) == pytest.approx(0, abs=CLOSE)
    assert expectation("tanh", 1, variance=0, mean=0.5) == pytest.approx(math.tanh(0.5), rel=1e-6)
    assert expectation("tanh", 2, True, 0.5, 0) == pytest.approx(
        (1 - math.tanh(0.5) ** 2) ** 2, rel=1e-2 if SINGLE else 1e-3
    )


def test_what_is_narrower_than_the_nodes_spacing_is_seen():
    """1 - tanh(sqrt(q) z)^2 integrates to 2 / sqrt(2 pi q) for large q, with a relative error of order 1 / q."""
    q = 1e6
    assert 1 - expectation("tanh", variance=q) == pytest.approx(2 / math.sqrt(2 * math.pi * q), rel=1e-3)
    assert 1 - expectation("tanh", variance=q) > 5e-4


# Published closed forms: F(q), M(c) at q, chi_1 at q.
@pytest.mark.parametrize("sigma_b", [0.0, 0.3])
@pytest.mark.parametrize("q", [0.2, 1.0, 5.0])
def test_maps_in_closed_form(q, sigma_b):
    sigma_w, c = 1.3, np.array([-0.9, 0.0, 0.4, 0.99, 1.0])
    closed = {
        "relu": (q / 2, q * arc_cosine(c), 1 / 2),
        "linear": (q, q * c, 1),
        keras.ops.erf: (arc_sine(1.0, q), arc_sine(c, q), 4 / math.pi / math.sqrt(1 + 4 * q)),
    }
    for activation, (square, product, slope) in closed.items():
        variance = sigma_w**2 * square + sigma_b**2
        assert variance_map(activation, sigma_w, sigma_b)(q) == pytest.approx(variance, rel=CLOSE)
        mapped = correlation_map(activation, sigma_w, sigma_b, q)
        expected = (sigma_w**2 * product + sigma_b**2) / variance
        np.testing.assert_allclose(mapped(c), expected, atol=2e-6)
        assert mapped(0.4) == pytest.approx(expected[2], abs=2e-6)
        assert isinstance(mapped(0.4), float)
        assert chi_1(activation, sigma_w, sigma_b, q) == pytest.approx(sigma_w**2 * slope, rel=CLOSE)


def test_fixed_points_in_closed_form():
    """relu: q = sigma_b^2 / (1 - sigma_w^2 / 2). erf: the root of its variance map."""
    assert fixed_point("relu", 1.0, 0.3) == pytest.approx(0.18, rel=CLOSE)
    for sigma_w, sigma_b in [(1.5, 0.0), (3.0, 0.5), (0.8, 0.1)]:
        root = optimize.brentq(lambda q: sigma_w**2 * arc_sine(1, q) + sigma_b**2 - q, 1e-4, 1e3, xtol=1e-14)  # noqa: B023
        assert fixed_point(keras.ops.erf, sigma_w, sigma_b) == pytest.approx(root, rel=10 * CLOSE)


@pytest.mark.parametrize(
    ("activation", "sigma_w", "sigma_b"),
    [
        ("tanh", 1.5, 0.0),
        ("tanh", 0.8, 0.2),
        ("gelu", 1.4, 0.3),
        ("selu", 1.1, 0.0),
        ("sigmoid", 2.0, 0.1),
        (bump, 8.0, 0.0),
    ],
)
def test_fixed_point_is_where_iteration_ends(activation, sigma_w, sigma_b):
    step, q = variance_map(activation, sigma_w, sigma_b), 1.0
    for _ in range(150):
        q = step(q)
    assert fixed_point(activation, sigma_w, sigma_b) == pytest.approx(q, rel=max(CLOSE, 1e-7) * 10)


@pytest.mark.parametrize(
    ("activation", "sigma_w", "sigma_b", "q"),
    [
        ("tanh", 0.9, 0.0, 0.0),
        ("tanh", 1.0, 0.0, 0.0),
        ("gelu", 1.4, 0.0, 0.0),
        ("relu", 1.4, 0.0, 0.0),
        ("relu", 0.0, 0.5, 0.25),
        ("relu", 1.5, 0.0, math.inf),
        ("relu", math.sqrt(2), 0.1, math.inf),
        ("exponential", 2.0, 0.0, math.inf),
        ("relu", math.sqrt(2), 0.0, 1.0),
        ("linear", 1.0, 0.0, 1.0),
        ("tanh", 0.9, 1e-6, 1e-12 / 0.19),
        ("relu", 1.0, math.sqrt(8), 16.0),
    ],
)
def test_vanishing_exploding_and_marginal_variance(activation, sigma_w, sigma_b, q):
    assert fixed_point(activation, sigma_w, sigma_b) == pytest.approx(q, rel=CLOSE, abs=0)


@pytest.mark.parametrize(
    ("activation", "sigma_w", "sigma_b", "expected"),
    [
        ("relu", 1.4, 0.0, "ordered"),
        ("relu", math.sqrt(2), 0.0, "critical"),
        ("relu", 1.5, 0.0, "chaotic"),
        ("tanh", 1.0, 0.1, "ordered"),
        ("tanh", 2.0, 0.1, "chaotic"),
        ("gelu", 2.0, 0.0, "chaotic"),
        ("linear", 1.0, 0.0, "critical"),
    ],
)
def test_phases(activation, sigma_w, sigma_b, expected):
    assert phase(activation, sigma_w, sigma_b) == expected


@pytest.mark.parametrize("sigma_b", [0.01, 0.3])
def test_the_critical_point_is_critical(sigma_b):
    point = critical_point("tanh", sigma_b)
    assert fixed_point("tanh", point.sigma_w, sigma_b) == pytest.approx(point.q, rel=1e-4)
    if not SINGLE:  # chi_1 of a rounded tanh is good to 1e-5 only
        assert phase("tanh", point.sigma_w, sigma_b) == "critical"
        assert depth_scale("tanh", point.sigma_w, sigma_b).correlation == math.inf
    assert phase("tanh", point.sigma_w * 0.99, sigma_b) == "ordered"
    assert phase("tanh", point.sigma_w * 1.01, sigma_b) == "chaotic"


@pytest.mark.parametrize(
    ("activation", "sigma_w", "sigma_b"),
    [("tanh", 0.9, 0.3), ("tanh", 1.5, 0.1), ("tanh", 1.5, 0.0), ("gelu", 1.2, 0.5)],
)
def test_depth_scales_are_those_of_iterated_maps(activation, sigma_w, sigma_b):
    """The distance from the fixed point after 60 and 61 layers, for maps that were iterated, not differentiated."""
    scales, q = depth_scale(activation, sigma_w, sigma_b), fixed_point(activation, sigma_w, sigma_b)
    step, ratios = variance_map(activation, sigma_w, sigma_b), 1e-3
    assert abs((step(q * (1 + ratios)) - q) / (q * ratios)) == pytest.approx(math.exp(-1 / scales.variance), rel=5e-3)
    mapped = correlation_map(activation, sigma_w, sigma_b)
    c = 0.6
    for _ in range(400):
        c = mapped(c)
    end, width = c, 1e-3
    slope = (mapped(min(end + width, 1.0)) - mapped(end - width)) / (min(end + width, 1.0) - end + width)
    assert slope == pytest.approx(math.exp(-1 / scales.correlation), rel=5e-3)


def test_depth_scales_in_closed_form():
    """relu: both ln(2 / sigma_w^2) below criticality; erf: F' and chi_1 from the arc-sine kernel."""
    assert depth_scale("relu", 1.2) == pytest.approx((1 / math.log(2 / 1.44),) * 2, rel=1e-4)
    assert depth_scale("relu", math.sqrt(2)) == (math.inf, math.inf)
    sigma_w, sigma_b = 0.9, 0.4
    q = fixed_point(keras.ops.erf, sigma_w, sigma_b)
    width = 1e-6
    slope = sigma_w**2 * (arc_sine(1, q + width) - arc_sine(1, q - width)) / (2 * width)
    expected = (-1 / math.log(slope), -1 / math.log(sigma_w**2 * 4 / math.pi / math.sqrt(1 + 4 * q)))
    assert depth_scale(keras.ops.erf, sigma_w, sigma_b) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: variance_map("relu", -1.0), r"sigma_w: got -1\.0, expected a finite number of at least 0"),
        (lambda: variance_map("relu", 1.0, math.inf), r"sigma_b: got inf, expected a finite number"),
        (lambda: variance_map("rely", 1.0), r"Keras knows none called 'rely'\. Did you mean"),
        (lambda: chi_1("relu", "one"), r"sigma_w: got 'one', expected"),
        (lambda: chi_1("relu", 1.0, q=-1.0), r"q: got -1\.0, expected a finite number of at least 0"),
        (lambda: chi_1("relu", 1.0, q=math.nan), r"q: got nan, expected a finite number"),
        (lambda: covariance("relu", [0.0, 1.1]), r"correlation: got \[0\.0, 1\.1\], expected numbers from -1 to 1"),
        (lambda: correlation_map("relu", 1.0, q=1.0)(math.nan), r"correlation: got nan, expected numbers"),
        (
            lambda: correlation_map("relu", 0.0),
            r"sigma_w, sigma_b: got 0\.0 and 0\.0, which leave a signal of variance 0",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
