"""Power and false alarms of the conformance kit's statistical checks (the figures in docs/conformance.md).

Power: draws of real initializers with many seeds, multiplied by 1.02 and 0.98 or shifted, and how many the checks
let pass. False alarms: the bound from the levels, and the p-values of correct draws, which must be uniform.

    python benchmarks/conformance_power.py [runs]
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np
from scipy import special, stats

from keras_initkit.initializers import ActivationScaling
from keras_initkit.testing import _significance
from keras_initkit.testing._subject import to_numpy
from keras_initkit.testing.declarations._declare import FAN_SHAPES, SHAPES
from keras_initkit.testing.declarations._scalings_and_biases import centred

DISTRIBUTIONS = ("untruncated_normal", "truncated_normal", "uniform")
SHAPE = SHAPES[0]
LEVEL = _significance.LEVEL_PER_CHECK / len(SHAPES)


def analytic_power(kurtosis, factor, size):
    """Chance that one shape of `size` elements fails when the standard deviation is off by `factor`."""
    error = math.sqrt((kurtosis - 1) / size)
    threshold = stats.norm.isf(LEVEL / 2) * error
    off = stats.norm(factor**2 - 1, factor**2 * error)
    return off.sf(threshold) + off.cdf(-threshold)


def analytic_mean_power(shift, size):
    """Likewise for a mean off by `shift` standard deviations."""
    return stats.norm.sf(stats.norm.isf(LEVEL / 2) - shift * math.sqrt(size))


def power(runs):
    print(f"Power, {runs} seeds of ActivationScaling('linear') in shape {SHAPE}, level {LEVEL:.1g} for one shape:\n")
    print("| distribution | kurtosis | mistake | found | missed, analytic | missed, 95 % bound from these runs |")
    print("|---|---|---|---|---|---|")
    for name in DISTRIBUTIONS:
        declared = centred(name, 1 / SHAPE[0])
        kurtosis = float(declared.stats("k")) + 3
        size, stddev = math.prod(SHAPE), declared.std()
        found = {"sd x 1.02": 0, "sd x 0.98": 0, "mean + 0.03 sd": 0}
        missed = {
            "sd x 1.02": 1 - analytic_power(kurtosis, 1.02, size),
            "sd x 0.98": 1 - analytic_power(kurtosis, 0.98, size),
            "mean + 0.03 sd": 1 - analytic_mean_power(0.03, size),
        }
        for seed in range(runs):
            values = to_numpy(ActivationScaling("linear", distribution=name, seed=seed)(SHAPE))
            found["sd x 1.02"] += _significance.stddev_p_value(1.02 * values, declared) < LEVEL
            found["sd x 0.98"] += _significance.stddev_p_value(0.98 * values, declared) < LEVEL
            found["mean + 0.03 sd"] += _significance.mean_p_value(values + 0.03 * stddev, declared) < LEVEL
        for mistake, count in found.items():
            bound = stats.beta(runs - count + 1, count).ppf(0.95) if count else 1.0
            print(f"| {name} | {kurtosis:.2f} | {mistake} | {count} of {runs} | {missed[mistake]:.1g} | {bound:.1g} |")


def false_alarms():
    """The bound over a whole run: the levels, the exact tail of the variance test, and equal fresh seeds."""
    nominal = 5 * _significance.LEVEL_PER_CHECK
    exact = 0.0
    for shapes in (SHAPES, FAN_SHAPES):
        for shape in shapes:
            size = math.prod(shape)
            threshold = stats.norm.isf(_significance.LEVEL_PER_CHECK / len(shapes) / 2) * math.sqrt(2 / size)
            exact += stats.chi2(size).sf(size * (1 + threshold)) + stats.chi2(size).cdf(size * (1 - threshold))
    print("\nFalse alarms of a full run over a correct initializer, union bound:\n")
    print(f"- five statistical checks of {_significance.LEVEL_PER_CHECK:g} each: {nominal:.2g}")
    print(
        f"- stddev and fan_mode for a normal draw, exact chi-squared tails instead of {2e-6:.2g}: {exact:.3g} "
        f"(they add {exact - 2e-6:+.1g})"
    )
    print(f"- two pairs of fresh seeds among 1e9 that coincide: {2e-9:.2g}")
    print(f"- total: {nominal + max(0.0, exact - 2e-6) + 2e-9:.3g}")


def numpy_draw(name, generator, size):
    """Values of variance 1, by the inverse of the distribution function: not as any backend draws."""
    uniform = generator.random(size)
    if name == "uniform":
        return (2 * uniform - 1) * math.sqrt(3)
    if name == "untruncated_normal":
        return special.ndtri(uniform)
    below = special.ndtr(-2.0)
    return special.ndtri(below + (1 - 2 * below) * uniform) / stats.truncnorm(-2, 2).std()


def uniformity(runs):
    size = _significance.SAMPLE_SIZE
    print(f"\np-values of {runs} correct draws of {size} elements (NumPy), which must be uniform:\n")
    print("| distribution | check | share below 0.001 | below 0.01 | below 0.05 | KS p-value against uniform |")
    print("|---|---|---|---|---|---|")
    checks = {
        "mean": _significance.mean_p_value,
        "stddev": _significance.stddev_p_value,
        "distribution": _significance.distribution_p_value,
    }
    for number, name in enumerate(DISTRIBUTIONS):
        declared = centred(name, 1.0)
        p_values = {check: np.empty(runs) for check in checks}
        for run in range(runs):
            values = numpy_draw(name, np.random.default_rng((number, run)), size)
            for check, p_value in checks.items():
                p_values[check][run] = p_value(values, declared)
        for check, found in p_values.items():
            shares = " | ".join(f"{(found < level).mean():.4f}" for level in (0.001, 0.01, 0.05))
            print(f"| {name} | {check} | {shares} | {stats.kstest(found, 'uniform').pvalue:.2f} |")


if __name__ == "__main__":
    number_of_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    start = time.perf_counter()
    power(number_of_runs)
    false_alarms()
    uniformity(number_of_runs // 2)  # the Kolmogorov-Smirnov test takes its time
    print(f"\n{time.perf_counter() - start:.0f} s")
