r"""Mean-field theory of wide random networks: variance and correlation of signals over depth.

A layer of weights of variance sigma_w^2 / fan_in and biases of variance sigma_b^2 takes two signals, whose
pre-activations are Gaussians u and v of variance q and correlation c, to

    F(q) = sigma_w^2 E[f(u)^2] + sigma_b^2,                   the variance map
    M(c) = (sigma_w^2 E[f(u) f(v)] + sigma_b^2) / F(q),       the correlation map

Depth takes q to a fixed point F(q) = q. There the slope of M at c = 1 is chi_1 = sigma_w^2 E[f'(u)^2], by which a layer
also multiplies the variance of a gradient on its way back: below 1 all signals become alike and gradients vanish
(ordered), above 1 nearby signals diverge and gradients explode (chaotic).

References:
    - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos",
      https://arxiv.org/abs/1606.05340
    - Samuel S. Schoenholz et al. (2017), "Deep information propagation", https://arxiv.org/abs/1611.01232
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_initkit._checks import checked_number
from keras_initkit.theory._activations import Activation, evaluate, resolve
from keras_initkit.theory._correlation import HermiteSeries
from keras_initkit.theory._gains import expectation
from keras_initkit.theory._quadrature import sample

_ROUNDING = 1e-6  # relative: a variance that a layer changes by less stays, also where values are float32
SMALL, LARGE = 1e-10, 1e12  # variances that stand for 0 and infinity


def covariance(activation: Activation, correlation: Any, variance: float = 1.0) -> np.ndarray:
    """Returns $E[f(u) f(v)]$ for Gaussians $u$ and $v$ of mean 0 that have the same variance.

    Args:
        activation: String, callable or None. As in `gain`.
        correlation: Float or float array. Correlation of u and v, from -1 to 1.
        variance: Float. Variance of u and of v.

    Returns:
        Float array of the correlation's shape, exact to 1e-6 of $E[f^2]$ (1e-4 where f jumps).

    Raises:
        ValueError: If a correlation is out of range.

    Example:

    >>> covariance("relu", [0.0, 0.5, 1.0]).round(4)  # 1 / (2 pi) at 0, where relu's mean is squared
    array([0.1592, 0.3045, 0.5   ])

    References:
        - Youngmin Cho and Lawrence K. Saul (2009), "Kernel methods for deep learning", for relu,
          https://papers.nips.cc/paper/3628-kernel-methods-for-deep-learning
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos", for the
          correlation map, https://arxiv.org/abs/1606.05340
    """
    correlation = _correlations(correlation)
    function = resolve(activation)
    fixed = not isinstance(function, keras.Layer) and getattr(function, "__hash__", None) is not None
    unit = _series_of_homogeneous(function) if fixed else None
    if unit is not None:
        return variance * unit(correlation)
    return HermiteSeries(sample(function, variance=variance))(correlation)


@functools.lru_cache(maxsize=64)
def _series_of_homogeneous(function: Callable) -> HermiteSeries | None:
    """Returns the series at variance 1 of a function with f(a x) = a f(x), such as relu; `None` of another."""
    values = evaluate(function, np.array([-4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0]))
    expected = np.repeat([values[2], values[5]], 4) * [4, 2, 1, 0.5, 0.5, 1, 2, 4]
    return HermiteSeries(sample(function)) if np.array_equal(values, expected) else None


def variance_map(activation: Activation, sigma_w: float, sigma_b: float = 0.0) -> Callable[[float], float]:
    r"""Returns the variance map of a layer: the variance of its pre-activations from that of the layer before.

    .. math::

        F(q) = \sigma_w^2 E[f(\sqrt{q} z)^2] + \sigma_b^2, \quad z \sim N(0, 1)

    Args:
        activation: String, callable or None. As in `gain`.
        sigma_w: Float. Standard deviation of the weights, times sqrt(fan_in).
        sigma_b: Float. Standard deviation of the biases.

    Returns:
        The function $F$, from one variance to the next layer's.

    Raises:
        ValueError: If a standard deviation is negative or not finite, or the activation is unknown.

    Example:

    >>> he = variance_map("relu", sigma_w=2**0.5)
    >>> round(he(3.0), 6)
    3.0

    References:
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos", equation
          3, https://arxiv.org/abs/1606.05340
        - Samuel S. Schoenholz et al. (2017), "Deep information propagation", equation 2,
          https://arxiv.org/abs/1611.01232
    """
    function = resolve(activation)
    weights, biases = checked_number("sigma_w", sigma_w, least=0) ** 2, checked_number("sigma_b", sigma_b, least=0) ** 2
    return lambda q: weights * expectation(function, variance=q) + biases


def correlation_map(
    activation: Activation, sigma_w: float, sigma_b: float = 0.0, q: float | None = None
) -> Callable[[Any], Any]:
    r"""Returns the correlation map of a layer: the correlation of two pre-activations from that in the layer before.

    .. math::

        M(c) = (\sigma_w^2 E[f(u) f(v)] + \sigma_b^2) / F(q), \quad u, v \sim N(0, q) \text{ of correlation } c

    Args:
        activation, sigma_w, sigma_b: As in `variance_map`.
        q: Float or None. Variance of the pre-activations u and v; None takes the one that they settle at
            (`fixed_point`). At 0 and at infinity the map is its limit there.

    Returns:
        The function $M$, from the correlation of two pre-activations to that in the next layer, a number or an array.

    Raises:
        ValueError: As in `variance_map`, and if a correlation is not from -1 to 1.

    Example:

    >>> he = correlation_map("relu", sigma_w=2**0.5)
    >>> round(he(0.0), 4)  # 1 / pi: orthogonal signals become correlated
    0.3183

    References:
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos", equation
          5, https://arxiv.org/abs/1606.05340
        - Youngmin Cho and Lawrence K. Saul (2009), "Kernel methods for deep learning", for relu,
          https://papers.nips.cc/paper/3628-kernel-methods-for-deep-learning
    """
    function = resolve(activation)
    weights, biases = checked_number("sigma_w", sigma_w, least=0) ** 2, checked_number("sigma_b", sigma_b, least=0) ** 2
    series = HermiteSeries(sample(function, variance=settled(activation, sigma_w, sigma_b, q)))
    after = weights * series.mean_square + biases
    if not 0 < after < math.inf:
        raise ValueError(
            f"sigma_w, sigma_b: got {sigma_w!r} and {sigma_b!r}, which leave a signal of variance {after} "
            "without a correlation. Expected weights or biases that are not all zero, and finite activations."
        )

    def mapped(correlation: Any) -> Any:
        result = (weights * series(_correlations(correlation)) + biases) / after
        return result if np.ndim(correlation) else float(result)

    return mapped


def fixed_point(activation: Activation, sigma_w: float, sigma_b: float = 0.0) -> float:
    r"""Returns the variance $q = F(q)$ that pre-activations of variance 1 settle at with depth.

    Args:
        activation, sigma_w, sigma_b: As in `variance_map`.

    Returns:
        Float. The variance: 0.0 where it vanishes (for a tanh at criticality as slowly as 1 / depth), infinity where it
        explodes, and 1.0 where 1 stays: every variance does for relu with $\sigma_w^2 = 2$; under
        `sigma_w=gain("gelu")` 1 does, and what is a little more or less moves away.

    Raises:
        ValueError: As in `variance_map`.

    Example:

    >>> round(fixed_point("tanh", sigma_w=1.5, sigma_b=0.1), 4)
    0.8133
    >>> fixed_point("relu", sigma_w=1.4), fixed_point("relu", sigma_w=1.5), fixed_point("relu", sigma_w=2**0.5)
    (0.0, inf, 1.0)

    References:
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos", section
          2.1, https://arxiv.org/abs/1606.05340
        - Samuel S. Schoenholz et al. (2017), "Deep information propagation", section 3,
          https://arxiv.org/abs/1611.01232
    """
    step = variance_map(activation, sigma_w, sigma_b)
    q, after = 1.0, step(1.0)
    if abs(after - q) <= _ROUNDING * q:
        return 1.0
    # The variance moves to the next fixed point on its way. F grows with q for common activations, and for no
    # activation does it fall faster than 1 / sqrt(q), E[(z^2 - 1) f^2] being at least -E[f^2]: there are no cycles.
    up = after > q
    floor = 0.0 if up else step(0.0)
    while (after > q * (1 - _ROUNDING)) if up else (after < q * (1 + _ROUNDING)):
        if (up and q >= LARGE) or not math.isfinite(after):
            return math.inf
        if not up and q <= SMALL and not floor > 0:
            return 0.0
        beyond = q
        q = 4 * q if up else max(q / 4, min(floor, after) / 2)
        after = step(q)
    from scipy.optimize import brentq  # slow to import

    if (step(beyond) > beyond) != up:  # by rounding: it is a fixed point itself
        return beyond
    return float(brentq(lambda each: step(each) - each, *sorted([beyond, q]), xtol=1e-300, rtol=1e-12))


def _correlations(values: Any) -> np.ndarray:
    array = np.asarray(values, "float64")
    if not (np.abs(array) <= 1 + 1e-9).all():
        raise ValueError(f"correlation: got {values!r}, expected numbers from -1 to 1.")
    return np.clip(array, -1, 1)


def settled(activation: Activation, sigma_w: float, sigma_b: float, q: float | None) -> float:
    """The given variance or else that of the fixed point, away from 0 and infinity."""
    checked_number("sigma_w", sigma_w, least=0), checked_number("sigma_b", sigma_b, least=0)
    if q is None:
        q = fixed_point(activation, sigma_w, sigma_b)
    return min(max(q if q == math.inf else checked_number("q", q, least=0), SMALL), LARGE)


def variance_slope(activation: Activation, sigma_w: float, q: float) -> float:
    """F'(q), by E[(z^2 - 1) g(sqrt(q) z)] = 2 q d/dq E[g(sqrt(q) z)]: f is not differentiated."""
    z, weights, values = sample(resolve(activation), variance=q)
    if not np.isfinite(values).all():
        return math.inf
    return float(sigma_w**2 * (weights * (z**2 - 1)) @ values**2 / (2 * q))
