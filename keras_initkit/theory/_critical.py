"""The critical point: scales of weights and biases with which depth neither orders a signal nor makes it chaotic."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_initkit._checks import checked_number
from keras_initkit.theory._activations import Activation, evaluate, keras_name, resolve
from keras_initkit.theory._gains import expectation


class CriticalPoint(NamedTuple):
    """Standard deviations on the edge of chaos, and the pre-activations' variance `q` that they settle at."""

    sigma_w: float
    sigma_b: float
    q: float


def critical_point(activation: Activation, sigma_b: float | None = None, q: float | None = None) -> CriticalPoint:
    r"""Returns the point where depth neither orders a signal nor makes it chaotic, $F(q) = q$ and $\chi_1 = 1$.

    .. math::

        \sigma_w^2 = 1 / E[f'(\sqrt{q} z)^2], \qquad \sigma_b^2 = q - \sigma_w^2 E[f(\sqrt{q} z)^2]

    A smooth activation has a line of such points, so one number picks one of them: `sigma_b` or `q`. One that
    scales with its input (linear, relu, leaky_relu) has a single point, with $\sigma_b = 0$, at any `q`.

    Args:
        activation: String, callable or None. As in `gain`.
        sigma_b: Float or None. Standard deviation of the biases, 0 if neither number is given. Of several points the
            one of the smallest `q` is returned.
        q: Float or None. Variance of the pre-activations.

    Returns:
        A named tuple `CriticalPoint(sigma_w, sigma_b, q)` of floats. For `sigma_b=0` and a smooth activation, q is 0:
        the variance falls toward it as 1 / depth.

    Raises:
        ValueError: If both numbers are given, one is out of range, or there is no such point, since layers push the
            variance away from it (gelu and silu with small biases).

    Example:

    >>> round(critical_point("relu").sigma_w ** 2, 6)
    2.0
    >>> sigma_w, sigma_b, q = critical_point("tanh", sigma_b=0.05)
    >>> round(sigma_w, 3), round(q, 3)
    (1.123, 0.154)

    References:
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos",
          https://arxiv.org/abs/1606.05340
        - Samuel S. Schoenholz et al. (2017), "Deep information propagation", https://arxiv.org/abs/1611.01232
        - Jeffrey Pennington et al. (2017), "Resurrecting the sigmoid in deep learning through dynamical isometry",
          https://arxiv.org/abs/1711.04735
    """
    function = resolve(activation)
    if sigma_b is not None and q is not None:
        raise ValueError(f"sigma_b, q: got {sigma_b!r} and {q!r}, expected one of them; either gives the other.")
    if q is not None:
        q = checked_number("q", q, above=0)
    if sigma_b is not None:
        sigma_b = checked_number("sigma_b", sigma_b, least=0)
    # Layers clone their initializers. Only Keras' own functions are sure to stay as they are: a layer's slope may be
    # trained, and a closure may see other values.
    find = _remembered if keras_name(function) else _find
    return find(function, sigma_b, q)


_ROUNDING = 1e-5  # of q: what float32 quadrature leaves of a difference that is zero
_SMALL = 1e-10  # a variance at which a smooth activation is its tangent
_GRID = np.logspace(-6, 3, 10)


def _find(function: Callable, sigma_b: float | None, q: float | None) -> CriticalPoint:
    if q is not None:
        return _at(function, q)
    return _biased(function, sigma_b) if sigma_b else _unbiased(function)


_remembered = functools.lru_cache(maxsize=64)(_find)


def _name(function: Callable) -> str:
    return getattr(function, "__name__", repr(function))


def _variances(function: Callable, q: float) -> tuple[float, float]:
    """Variances of weights and biases that make q a fixed point at chi_1 = 1; the second may be negative."""
    slope = expectation(function, derivative=True, variance=q)
    if not (math.isfinite(slope) and slope > 0):
        raise ValueError(
            f"activation: {_name(function)} has no critical point, the mean square of its derivative is {slope}. "
            "Expected an activation that lets some gradient through."
        )
    return 1 / slope, q - expectation(function, variance=q) / slope


def _settles(function: Callable, weight: float, bias: float, q: float) -> bool:
    """Whether a variance a little above q comes back towards it (or stays, where every q is a fixed point)."""
    above = 1.05 * q
    return weight * expectation(function, variance=above) + bias <= above * (1 + _ROUNDING)


def _at(function: Callable, q: float) -> CriticalPoint:
    weight, bias = _variances(function, q)
    if bias < -_ROUNDING * q:
        raise ValueError(
            f"q: got {q!r}, where {_name(function)} has no critical point: it would need biases of variance "
            f"{bias:.3g}. Give another q, or ActivationScaling for a gain without biases."
        )
    if not _settles(function, weight, bias, q):
        raise ValueError(
            f"q: got {q!r}, where {_name(function)} has no stable critical point: layer after layer the variance "
            "moves away from it. Give a larger q."
        )
    return CriticalPoint(math.sqrt(weight), math.sqrt(bias) if bias > _ROUNDING * q else 0.0, q)


def _unbiased(function: Callable) -> CriticalPoint:
    weight, bias = _variances(function, 1.0)
    if abs(bias) <= _ROUNDING:  # f scales with its input, so that every q is a fixed point
        return CriticalPoint(math.sqrt(weight), 0.0, 1.0)
    silent = abs(evaluate(function, np.zeros(4))[0]) <= 1e-12
    weight = _variances(function, _SMALL)[0] if silent else math.nan
    if not (silent and _settles(function, weight, 0.0, 0.01)):
        raise ValueError(
            f"sigma_b: got 0, with which {_name(function)} has no stable critical point. "
            "Give q, for example q=10, and initialize the biases with the standard deviation that goes with it."
        )
    return CriticalPoint(math.sqrt(weight), 0.0, 0.0)


def _biased(function: Callable, sigma_b: float) -> CriticalPoint:
    from scipy.optimize import brentq  # slow to import, and only the line of a smooth activation needs it

    def excess(q: float) -> float:
        return _variances(function, q)[1] - sigma_b**2

    low, before = _GRID[0], excess(_GRID[0])
    for high in _GRID[1:]:
        after = excess(high)
        if (before > 0) != (after > 0):
            q = float(brentq(excess, low, high, rtol=1e-9))
            weight = _variances(function, q)[0]
            if _settles(function, weight, sigma_b**2, q):
                return CriticalPoint(math.sqrt(weight), sigma_b, q)
        low, before = high, after
    raise ValueError(
        f"sigma_b: got {sigma_b}, with which {_name(function)} has no stable critical point "
        f"of variance {_GRID[0]:g} to {_GRID[-1]:g}. Give another sigma_b, or q; "
        "an activation that scales with its input (relu) has one only without biases."
    )
