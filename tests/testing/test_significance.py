"""p-values against other implementations, and the arithmetic of the documented levels."""

import numpy as np
import pytest
from scipy import stats

from keras_initkit.testing import _significance

DISTRIBUTIONS = [stats.norm(0.3, 2.0), stats.uniform(-1, 2), stats.truncnorm(-2, 2, scale=0.5)]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=["normal", "uniform", "truncated"])
def test_p_values_agree_with_scipy(distribution):
    values = distribution.rvs(4096, random_state=np.random.default_rng(0))
    z = (values.mean() - distribution.mean()) / (distribution.std() / 64)
    assert _significance.mean_p_value(values, distribution) == pytest.approx(2 * stats.norm.sf(abs(z)))
    # The mean of (x - mu)^2 has a variance of m4 - sigma^4.
    squares = (values - distribution.mean()) ** 2
    m4 = distribution.expect(lambda x: (x - distribution.mean()) ** 4)
    z = (squares.mean() - distribution.var()) / np.sqrt((m4 - distribution.var() ** 2) / 4096)
    assert _significance.stddev_p_value(values, distribution) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6)
    assert _significance.distribution_p_value(values, distribution) == pytest.approx(
        stats.kstest(values, distribution.cdf, method="exact").pvalue, abs=0.02
    )


def test_the_variance_test_of_a_normal_is_near_the_exact_chi_squared_one():
    n, ratio = _significance.SAMPLE_SIZE, 1 + 5 * np.sqrt(2 / _significance.SAMPLE_SIZE)
    values = np.sqrt(ratio) * np.repeat([-1.0, 1.0], n // 2)
    exact = stats.chi2(n).sf(n * ratio)
    assert _significance.stddev_p_value(values, stats.norm()) / 2 == pytest.approx(exact, rel=0.25)


def test_sign_p_value():
    assert _significance.sign_p_value(np.array([1.0] * 8 + [-1.0] * 2)) == pytest.approx(
        2 * sum(stats.binom(10, 0.5).pmf(k) for k in (8, 9, 10))
    )


@pytest.mark.parametrize("factor", [0.98, 1.02])
@pytest.mark.parametrize("kurtosis", [1.8, 2.37, 3.0])
def test_two_percent_is_found_with_probability_over_0_999(factor, kurtosis):
    # Power of the two-sided test on the variance of one shape of SAMPLE_SIZE elements, of the two drawn.
    level = _significance.LEVEL_PER_CHECK / 2
    error = np.sqrt((kurtosis - 1) / _significance.SAMPLE_SIZE)
    threshold = stats.norm.isf(level / 2) * error
    beyond = stats.norm(factor**2 - 1, factor**2 * error)
    assert beyond.sf(threshold) + beyond.cdf(-threshold) > 0.999
