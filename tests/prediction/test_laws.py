"""Distributions that are not Gaussian, against quadrature and explicit loops in float64."""

import keras
import numpy as np
import pytest

from keras_initkit.prediction.algebra._activation import activate
from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._geometry import window_offsets
from keras_initkit.prediction.algebra._laws import law_of, shared
from keras_initkit.prediction.algebra._levels import between
from keras_initkit.prediction.algebra._signals import Gradient, Signal
from keras_initkit.prediction.operation_rules._merging import plus
from keras_initkit.prediction.operation_rules._normalization import _left

pytestmark = pytest.mark.one_backend
RELU = keras.activations.relu


def gaussian(source, variance=1.0):
    white = Autocorrelation.white(variance, 0.0, 0)
    return Signal(0.0, variance, (), white, Autocorrelation.white(0.0, 0.0, 0), True, sources=frozenset({source}))


@pytest.fixture(scope="module")
def draws():
    return np.random.default_rng(0).standard_normal((3, 2**20))


def test_a_rectified_stream_keeps_its_law(draws):
    """relu(relu(relu(u) + v) + w), as residual networks add up, is not Gaussian; it has the moments of a draw."""
    stream = activate(RELU, gaussian("u")).output
    values = np.maximum(draws[0], 0)
    for name, draw in (("v", draws[1]), ("w", draws[2])):
        total = plus(stream, gaussian(name, 0.5))
        stream = activate(RELU, total).output
        values = np.maximum(values + np.sqrt(0.5) * draw, 0)
        assert not total.gaussian
        assert stream.mean == pytest.approx(values.mean(), rel=5e-3)
        assert stream.second_moment == pytest.approx((values**2).mean(), rel=5e-3)
    assert law_of(stream).mean() == pytest.approx(stream.mean)
    assert law_of(stream).std() ** 2 == pytest.approx(stream.variance)


def test_a_gradient_that_passed_a_rectified_sum_finds_its_summands_large(draws):
    """P(u > 0 and relu(u) + v > 0) is more than the product of both."""
    first = activate(RELU, gaussian("u"))
    total = plus(first.output, gaussian("v"))
    (back,) = activate(RELU, total).backward(Gradient(1.0))
    both = np.maximum(draws[0], 0) + draws[1] > 0
    assert back.second_moment == pytest.approx(both.mean(), rel=5e-3)
    values, _ = shared(back.values, total, first.output, gaussian("v"))
    (end,) = first.backward(Gradient(back.second_moment, values=values))
    expected = (both & (draws[0] > 0)).mean()
    assert end.second_moment == pytest.approx(expected, rel=1e-2)
    assert expected > 1.1 * both.mean() / 2


@pytest.mark.parametrize(("removed", "center"), [(1, False), (2, True)])
def test_what_a_normalization_over_few_units_leaves_of_a_gradient(removed, center):
    n, random = 8, np.random.default_rng(1)
    x, g = random.standard_normal((2, 200_000, n))
    x = x - x.mean(axis=1, keepdims=True) if center else x
    deviation = np.sqrt((x**2).mean(axis=1, keepdims=True))
    y = x / deviation
    back = (g - (g.mean(axis=1, keepdims=True) if center else 0) - y * (g * y).mean(axis=1, keepdims=True)) / deviation
    assert _left(n, removed) == pytest.approx((back**2).mean(), rel=0.02)


def test_what_two_positions_share_is_weighed_by_both_their_levels():
    levels = np.array([[0.1, 0.4, 2.5], [1.0, 1.5, 0.5]])
    pairs = [np.sqrt(row[i] * row[j]) for row in levels for i in range(3) for j in range(3) if i != j]
    assert between(levels) == pytest.approx(np.mean(pairs))
    assert between(None) == 1.0
    found = Gradient(2.0, white=False, common=0.3).weighed(5.0, levels / levels.mean())
    assert found.second_moment == pytest.approx(10.0)
    assert found.common == pytest.approx(0.3 * 5 * between(levels / levels.mean()))


@pytest.mark.parametrize(("n", "k", "s"), [(4, 5, 1), (7, 3, 2), (4, 3, 1), (6, 1, 1)])
def test_gradients_gather_where_windows_overlap(n, k, s):
    """Against a sum over all outputs and offsets of a convolution of one axis."""
    offsets = window_offsets((n,), (k,), (s,), (1,), "same")
    outputs = offsets.size[0]
    given = np.linspace(1.0, 2.0, outputs)
    given /= given.mean()
    missing = max((outputs - 1) * s + k - n, 0)
    read = [(o, t, o * s + t - missing // 2) for o in range(outputs) for t in range(k)]
    read = [each for each in read if 0 <= each[2] < n]
    reached = np.array([sum(given[o] for o, _, i in read if i == place) for place in range(n)])
    factor, (profile,) = offsets.returned((given,))
    assert factor == pytest.approx(reached.mean())
    np.testing.assert_allclose(profile, reached / reached.mean())
    assert offsets.returned(())[0] == pytest.approx(offsets.per_input)
    met = sum(t == u for _, t, i in read for _, u, j in read if i != j) / (n * (n - 1))
    assert offsets.meeting == pytest.approx(met / (len(read) / n))
