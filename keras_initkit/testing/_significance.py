"""How surprising a draw is under its declared distribution: p-values, and the level at which they fail.

Only NumPy and scipy, so that `benchmarks/conformance_power.py` can run them many times without a backend.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special, stats

# Chance of a false alarm that each statistical check may spend on one run, divided over its shapes. There are
# five such checks, so a whole run stays below 5e-6 (docs/conformance.md has the derivation).
LEVEL_PER_CHECK = 1e-6
# For predicates that test a distribution, which then has no check of its own: two shapes, four tests each.
LEVEL_IN_PREDICATE = LEVEL_PER_CHECK / 8
# Elements of a draw: at this level a standard deviation off by 2 % is then found with probability > 0.999.
SAMPLE_SIZE = 2**17


def two_sided(z: float) -> float:
    """The chance that a standard normal variable is farther from 0 than `z`."""
    return float(2 * special.ndtr(-abs(z)))


def mean_p_value(values: np.ndarray, distribution: Any) -> float:
    """p-value of the sample mean: z = (mean - mu) / (sigma / sqrt(n))."""
    mu, variance = distribution.stats("mv")
    return two_sided((values.mean() - mu) * math.sqrt(values.size / variance))


def stddev_p_value(values: np.ndarray, distribution: Any) -> float:
    """p-value of the sample variance: z = (s^2 / sigma^2 - 1) / sqrt((kurtosis - 1) / n).

    `s^2` is taken about the declared mean. The relative standard error of a standard deviation is half of this
    denominator: sqrt((kurtosis - 1) / (4 n)).
    """
    mu, variance, excess = distribution.stats("mvk")
    ratio = np.square(values - mu).mean() / variance
    return two_sided((ratio - 1) / math.sqrt((excess + 2) / values.size))


def distribution_p_value(values: np.ndarray, distribution: Any) -> float:
    """p-value of the Kolmogorov-Smirnov distance to the declared distribution."""
    return float(stats.kstest(values.ravel(), distribution.cdf, method="asymp").pvalue)


def sign_p_value(values: np.ndarray) -> float:
    """p-value of the count of positive values, when both signs are equally likely (exact binomial test)."""
    return float(stats.binomtest(int((values > 0).sum()), values.size).pvalue)
