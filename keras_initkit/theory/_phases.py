"""Order and chaos: over how many layers a network forgets its input."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from keras_initkit.theory._activations import Activation, resolve
from keras_initkit.theory._correlation import HermiteSeries
from keras_initkit.theory._gains import expectation
from keras_initkit.theory._mean_field import LARGE, SMALL, correlation_map, settled, variance_slope
from keras_initkit.theory._quadrature import sample

_CRITICAL = 1e-5  # what |chi_1 - 1| may be where it was computed in float32: memory of 100,000 layers


class DepthScale(NamedTuple):
    """Numbers of layers over which variance and correlation move by a factor e relative to their fixed points."""

    variance: float
    correlation: float


def chi_1(activation: Activation, sigma_w: float, sigma_b: float = 0.0, q: float | None = None) -> float:
    r"""Returns the factor $\chi_1$ by which a layer multiplies the variance of a gradient.

    .. math::

        \chi_1 = \sigma_w^2 E[f'(\sqrt{q} z)^2], \quad z \sim N(0, 1)

    Args:
        activation, sigma_w, sigma_b: As in `variance_map`.
        q: Float or None. Variance of the pre-activations; None takes the one that they settle at (`fixed_point`).
            At 0 and at infinity $\chi_1$ is its limit there.

    Returns:
        Float. $\chi_1$: below 1 in the ordered phase, above 1 in the chaotic phase.

    Raises:
        ValueError: As in `fixed_point`.

    Example:

    >>> round(chi_1("tanh", sigma_w=1.5, sigma_b=0.1), 4)
    1.1291
    >>> round(chi_1("relu", sigma_w=1.0), 4)
    0.5

    References:
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos", equation
          6, https://arxiv.org/abs/1606.05340
        - Samuel S. Schoenholz et al. (2017), "Deep information propagation", equation 4,
          https://arxiv.org/abs/1611.01232
    """
    variance = settled(activation, sigma_w, sigma_b, q)
    return float(sigma_w) ** 2 * expectation(resolve(activation), derivative=True, variance=variance)


def depth_scale(activation: Activation, sigma_w: float, sigma_b: float = 0.0) -> DepthScale:
    r"""Returns the depth scales over which a signal's variance and two signals' correlation are remembered.

    .. math::

        \xi_q = 1 / |\ln F'(q^*)|, \qquad \xi_c = 1 / |\ln M'(c^*)|

    $F$ and $M$ are `variance_map` and `correlation_map`, $q^*$ and $c^*$ their fixed points: $c^* = 1$ in the ordered
    phase, where $M'$ is $\chi_1$, and the one below 1 in the chaotic phase. Where the variance vanishes or explodes,
    $\xi_c$ is the scale of two signals' covariance.

    Args:
        activation, sigma_w, sigma_b: As in `variance_map`.

    Returns:
        A named tuple `DepthScale(variance, correlation)` of floats, in layers; infinite where critical. Networks of
        more than a few times $\xi_c$ layers do not train.

    Raises:
        ValueError: As in `fixed_point`.

    Example:

    >>> [round(layers, 2) for layers in depth_scale("tanh", sigma_w=1.5, sigma_b=0.1)]
    [1.42, 14.85]
    >>> depth_scale("relu", sigma_w=2**0.5)
    DepthScale(variance=inf, correlation=inf)

    References:
        - Samuel S. Schoenholz et al. (2017), "Deep information propagation", section 3,
          https://arxiv.org/abs/1611.01232
    """
    q = settled(activation, sigma_w, sigma_b, None)
    slope = chi_1(activation, sigma_w, sigma_b, q)
    if slope > 1 + _CRITICAL and SMALL < q < LARGE:
        slope = _slope_at_rest(activation, sigma_w, sigma_b, q)
    return DepthScale(_layers(variance_slope(activation, sigma_w, q)), _layers(slope))


def phase(activation: Activation, sigma_w: float, sigma_b: float = 0.0) -> Literal["ordered", "critical", "chaotic"]:
    r"""Returns whether depth makes signals alike (`"ordered"`), different (`"chaotic"`) or neither (`"critical"`).

    Args:
        activation, sigma_w, sigma_b: As in `variance_map`.

    Returns:
        `"ordered"`, `"critical"` or `"chaotic"`, as $\chi_1$ is below, within 1e-5 of, or above 1.

    Raises:
        ValueError: As in `fixed_point`.

    Example:

    >>> phase("tanh", sigma_w=0.9), phase("tanh", sigma_w=1.0), phase("tanh", sigma_w=1.5)
    ('ordered', 'critical', 'chaotic')

    References:
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos", section
          2.2, https://arxiv.org/abs/1606.05340
    """
    excess = chi_1(activation, sigma_w, sigma_b) - 1
    return "critical" if abs(excess) <= _CRITICAL else "chaotic" if excess > 0 else "ordered"


def _slope_at_rest(activation: Activation, sigma_w: float, sigma_b: float, q: float) -> float:
    """M'(c*) in the chaotic phase: M is convex, so c* is the only fixed point below 1."""
    from scipy.optimize import brentq  # slow to import

    step = correlation_map(activation, sigma_w, sigma_b, q)
    near = 1 - 1e-7
    while step(near) > near:  # rounding hides a dip below 1 where the phase is nearly critical
        near = 1 - 2 * (1 - near)
        if near < 0.5:
            return 1.0
    c = 0.0 if step(0.0) <= 1e-6 else brentq(lambda each: step(each) - each, 0.0, near, xtol=1e-12)
    slopes = HermiteSeries(sample(resolve(activation), variance=q, derivative=True))
    return sigma_w**2 * float(slopes(np.array(c)))


def _layers(slope: float) -> float:
    """1 / |ln slope|."""
    if abs(slope - 1) <= _CRITICAL:
        return math.inf
    return 1 / abs(math.log(abs(slope))) if slope else 0.0
