"""Distributions of elements that are not Gaussian, such as those of a residual stream of rectified branches.

A law is an array of equally likely values, in order: the means of the distribution between its quantiles.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_initkit.prediction.algebra._input_moments import autocorrelation, products
from keras_initkit.theory._activations import evaluate

_POINTS = 256


@functools.lru_cache(maxsize=1)
def _normal() -> np.ndarray:
    from scipy.special import ndtri

    return fitted(ndtri((np.arange(_POINTS * 16) + 0.5) / (_POINTS * 16)), 0.0, 1.0)


def fitted(values: np.ndarray, mean: float, variance: float) -> np.ndarray:
    """Returns the law of a large sample of values, moved to a mean and variance."""
    ordered = np.sort(values.ravel())
    law = ordered if len(ordered) == _POINTS else np.array([each.mean() for each in np.array_split(ordered, _POINTS)])
    deviation = law.std()
    return mean + (law - law.mean()) * (np.sqrt(variance) / deviation if deviation > 0 else 0.0)


def law_of(x: Any) -> np.ndarray | None:
    """Returns the law of a signal's elements; `None` where it is not known."""
    if not (x.identically_distributed or x.edges) or not x.known:
        return None
    if x.law is not None:
        return fitted(x.law, x.mean, x.variance)
    if x.gaussian and x.identically_distributed:
        return x.mean + np.sqrt(x.variance) * _normal()
    if x.function is None or x.argument is None or not x.argument.gaussian:
        return None
    z = x.argument
    return fitted(apply(x.function, z.mean + np.sqrt(z.variance) * _normal()), x.mean, x.variance)


def law_of_kinds(kinds: Sequence[tuple[float, float]], mean: float) -> np.ndarray:
    """Returns the law of Gaussian elements of several kinds, given by their shares and mean squares."""
    counts = [max(round(share * 16), 1) for share, _ in kinds]
    values = [np.tile(np.sqrt(max(second - mean**2, 0.0)) * _normal(), n) for (_, second), n in
              zip(kinds, counts, strict=True)]  # fmt: skip
    return fitted(np.concatenate(values), mean, sum(share * second for share, second in kinds) - mean**2)


def law_of_sum(a: Any, b: Any) -> np.ndarray | None:
    """Returns the law of the sum of two independent signals."""
    one, two = law_of(a), law_of(b)
    if one is None or two is None:
        return None
    return fitted(one[:, None] + two[None], a.mean + b.mean, a.variance + b.variance)


def shared(values: np.ndarray, total: Any, a: Any, b: Any) -> list[np.ndarray | None]:
    """Returns what depends on the sum of two independent signals, as it depends on each: averaged over the other."""
    whole, one, two = law_of(total), law_of(a), law_of(b)
    if whole is None or one is None or two is None:
        return [None, None]
    table = np.interp(one[:, None] + two[None], whole, values)
    return [table.mean(axis=1), table.mean(axis=0)]


def apply(function: Callable, values: np.ndarray) -> np.ndarray:
    """Applies a function to each value."""
    return np.asarray(evaluate(function, values.ravel()), "float64").reshape(values.shape)


def lags_of(sample: np.ndarray, size: Sequence[int]) -> dict[str, Any]:
    """Returns the autocorrelations of a sample of shape (units, examples, positions)."""
    units, examples, _ = sample.shape
    own = products(sample.reshape(units * examples, *size).transpose(*range(1, len(size) + 1), 0))
    means = products(sample.mean(axis=1).reshape(units, *size).transpose(*range(1, len(size) + 1), 0))
    other = (examples * means - own) / (examples - 1)
    return {"within_example": autocorrelation(own, size), "between_examples": autocorrelation(other, size)}
