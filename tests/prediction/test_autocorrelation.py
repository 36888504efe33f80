"""Correlation functions against sums over explicit positions of a periodic map, in float64 NumPy."""

import numpy as np
import pytest

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation

SIZE = 24  # divisible by all strides and windows below


def field(axes, seed=0):
    """A stationary covariance: positive near lag 0, 0.3 beyond, on a map whose ends meet."""
    near = np.zeros((5,) * axes)
    for index in np.ndindex(near.shape):
        near[index] = 0.3 + 2.0 * np.prod([1 - abs(i - 2) / 3 for i in index])
    return Autocorrelation(near, np.full((1,) * axes, 0.3))


def covariance(lags):
    """E[x_a x_b] for all pairs of positions on the map whose ends meet (1-D)."""
    a = np.arange(SIZE)
    lag = (a[None] - a[:, None] + SIZE // 2) % SIZE - SIZE // 2
    return lags.at([lag])


def by_lag(matrix):
    """The mean of a covariance matrix along its lags, ends meeting."""
    n = len(matrix)
    return np.array([np.mean([matrix[a, (a + d) % n] for a in range(n)]) for d in range(n // 2)])


def apply(linear, lags):
    return by_lag(linear @ covariance(lags) @ linear.T)


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (3, 1), (4, 4)])
def test_means_over_windows(window, stride):
    pool = np.zeros((SIZE // stride, SIZE))
    for row in range(len(pool)):
        pool[row, (row * stride + np.arange(window)) % SIZE] = 1 / window
    expected = apply(pool, field(1))
    got = field(1).windowed([window], [stride]).at([np.arange(len(expected))])
    np.testing.assert_allclose(got[: len(expected) - 1], expected[:-1], atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_repeated_positions(size):
    copies = np.kron(np.eye(SIZE), np.ones((size, 1)))
    expected = apply(copies, field(1))
    np.testing.assert_allclose(field(1).repeated([size]).at([np.arange(len(expected))])[:-3], expected[:-3], atol=1e-12)


def test_strides_and_spreading_undo_each_other():
    lags = field(1)
    strided = lags.strided([2])
    np.testing.assert_allclose(strided.at([np.arange(5)]), lags.at([2 * np.arange(5)]))
    spread = lags.dilated([3])
    assert spread.far.tolist() == [0.3, 0, 0]
    np.testing.assert_allclose(spread.at([np.array([0, 3, 6, -3, 1, 30, 31])]), [2.3, lags.at([[1]])[0],
                               lags.at([[2]])[0], lags.at([[1]])[0], 0, 0.3, 0])  # fmt: skip
    np.testing.assert_allclose(spread.strided([3]).at([np.arange(9)]), lags.at([np.arange(9)]))


@pytest.mark.parametrize("size", [(7,), (5, 4)])
def test_mean_over_all_pairs(size):
    lags = field(len(size))
    positions = np.array(list(np.ndindex(size)))
    difference = positions[:, None] - positions[None]
    assert lags.mean(size) == pytest.approx(lags.at(list(np.moveaxis(difference, -1, 0))).mean(), rel=1e-12)
    assert lags.mean((None,) * len(size)) == 0.3


def test_without_positions():
    lags = Autocorrelation.white(2.0, 0.5, axes=0)
    assert lags.zero == 2.0
    assert lags.mean(()) == 2.0
    assert (lags + lags).zero == 4.0
    assert lags.map(np.sqrt).zero == pytest.approx(2**0.5)
    assert lags.strided(()).zero == lags.dilated(()).zero == 2.0


def test_sums_and_products():
    wide, narrow = field(1), Autocorrelation.white(1.0, 0.5, 1)
    lag = np.arange(-6, 7)
    np.testing.assert_allclose((wide + narrow).at([lag]), wide.at([lag]) + narrow.at([lag]))
    np.testing.assert_allclose((wide * narrow).at([lag]), wide.at([lag]) * narrow.at([lag]))
