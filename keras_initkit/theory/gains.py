r"""The gain of an activation: what a kernel's scale must make up for.

Signal z ~ N(0, 1) that passes an activation f keeps its second moment if the next kernel has variance
g^2 / fan_in with

    forward:   g = E[f(z)^2] ^ -1/2        (He et al. 2015, eq. 10, for any f)
    backward:  g = E[f'(z)^2] ^ -1/2       (He et al. 2015, eq. 14; chi_1 = 1 of Poole et al. 2016 at q* = 1)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np
from numpy.polynomial.chebyshev import chebder, chebpts1, chebval, chebvander
from numpy.polynomial.hermite_e import hermegauss

from keras_initkit.theory.activations import Activation, evaluate, resolve

DIRECTIONS = ("forward", "backward")


def _normal_cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


_GELU = 1 / (2 * math.pi * math.sqrt(3))  # the integral of the cubed normal density
# E[f(z)^2] and E[f'(z)^2] where they have a closed form.
_SECOND_MOMENTS = {
    "linear": (1, 1),
    "relu": (1 / 2, 1 / 2),
    "leaky_relu": ((1 + 0.2**2) / 2, (1 + 0.2**2) / 2),  # Keras' default slope
    "elu": (
        1 + math.e**2 * _normal_cdf(-2) - 2 * math.sqrt(math.e) * _normal_cdf(-1),
        1 / 2 + math.e**2 * _normal_cdf(-2),
    ),
    "exponential": (math.e**2, math.e**2),
    "gelu": (1 / 3 + _GELU, 1 / 3 + 4 / 3 * _GELU),  # z times the normal distribution function
}


def gain(activation: Activation, direction: str = "forward") -> float:
    """The gain of `activation` for unit-variance Gaussian pre-activations.

    Args:
        activation: name of a Keras activation, a `keras.activations` function, an activation layer, or any
            callable that maps a tensor element by element; `None` is linear.
        direction: `"forward"` keeps the second moment of the signal, `"backward"` that of its gradient.

    Returns:
        The gain, exact where a closed form is known, else by quadrature.

    Raises:
        ValueError: for an unknown name or direction, for a function that is not elementwise (softmax), and
            for one without a gain (zero, or of infinite second moment).

    >>> round(gain("relu"), 4), round(gain("tanh"), 4), round(gain("gelu", "backward"), 4)
    (1.4142, 1.5925, 1.4811)

    In single precision, which is all that JAX has unless `jax_enable_x64` is set, a backward gain of an activation
    with a kink off the multiples of 1/2 is good to four digits; all others, and double precision, to six or more.

    PyTorch's `calculate_gain` differs where its values were set by convention: tanh 5/3, sigmoid 1, selu 3/4.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: got {direction!r}, expected one of {DIRECTIONS}.")
    function = resolve(activation)
    known = getattr(function, "__name__", "")
    if known in _SECOND_MOMENTS and getattr(keras.activations, known, None) is function:
        mean_square = _SECOND_MOMENTS[known][DIRECTIONS.index(direction)]
    else:
        mean_square = second_moment(function, derivative=direction == "backward")
    if not (math.isfinite(mean_square) and mean_square > 0):
        raise ValueError(
            f"activation: {known or function!r} has no {direction} gain, its mean square is {mean_square}. "
            "Expected an activation that lets some signal through, and finite values of it."
        )
    return 1 / math.sqrt(mean_square)


def second_moment(function: Callable, derivative: bool = False, variance: float = 1.0) -> float:
    """E[f(z)^2], or E[f'(z)^2], for z ~ N(0, variance), by quadrature.

    >>> round(second_moment(keras.activations.relu, variance=4.0), 4)
    2.0
    """
    if variance == 1:
        return _quadrature(function, derivative)
    stddev = math.sqrt(variance)
    scaled = _quadrature(lambda z: function(stddev * z), derivative)
    return scaled / variance if derivative else scaled


@np.errstate(over="ignore", invalid="ignore")  # what overflows ends as an infinite mean square
def _quadrature(function: Callable, derivative: bool) -> float:
    """E[f(z)^2], or E[f'(z)^2], for z ~ N(0, 1)."""
    if not derivative:
        # Gauss-Hermite: exponentially accurate where f is smooth, so two orders agree; at a kink they do not.
        (few, few_weights), (many, many_weights) = hermegauss(80), hermegauss(120)
        values = evaluate(function, np.concatenate([few, many]))
        squares = values.astype("float64") ** 2 / math.sqrt(2 * math.pi)
        first, second = few_weights @ squares[:80], many_weights @ squares[80:]
        if abs(first - second) <= _tolerance(values) * abs(second):
            return float(second)
    return _panel_quadrature(function, derivative)


def _tolerance(values: np.ndarray) -> float:
    """What two quadratures of these values may differ by: rounding, where they were computed in float32.

    JAX has no float64 unless told so, and a user's function may cast. Below its rounding no refinement ends.
    """
    return 1e-10 if values.dtype == "float64" else 2e-7


_DEGREE = 24
_POINTS = chebpts1(_DEGREE)
_TO_SERIES = np.linalg.inv(chebvander(_POINTS, _DEGREE - 1))
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_DEGREE)


def _panel_quadrature(function: Callable, derivative: bool) -> float:
    """The same over panels that are halved wherever f has a kink or a jump inside.

    On a panel f is replaced by its Chebyshev interpolant, which can be differentiated: no step size, and the
    same accuracy for f' as its smoothness allows. Keras' own kinks fall on panel borders from the start.
    """

    def integrals(panels: np.ndarray) -> tuple[np.ndarray, float]:
        centre, half = panels.mean(axis=1)[:, None], np.diff(panels, axis=1) / 2
        values = evaluate(function, (centre + half * _POINTS).ravel())
        series = _TO_SERIES @ values.reshape(len(panels), -1).T
        if derivative:
            series = chebder(series) / half.T
        z = centre + half * _NODES
        squares = chebval(_NODES, series) ** 2 * np.exp(-(z**2) / 2) * half
        # Differences of what was rounded to float32 lose a digit.
        coarser = 10 if derivative and values.dtype != "float64" else 1
        return squares @ _WEIGHTS / math.sqrt(2 * math.pi), _tolerance(values) * coarser

    borders = np.arange(-14, 14.25, 0.5)
    panels = np.stack([borders[:-1], borders[1:]], axis=1)
    whole, tolerance = integrals(panels)
    if not max(whole[0], whole[-1]) <= 1e-6 * whole.sum():
        return math.inf  # it grows faster than the normal density falls, or has no values there
    # Differences within a panel narrower than this would be rounding errors.
    narrowest = 1e-12 if tolerance < 1e-9 else 1e-4 if derivative else 1e-6
    total = 0.0
    while True:
        middle = panels.mean(axis=1)
        halves = np.stack([panels[:, 0], middle, middle, panels[:, 1]], axis=1).reshape(-1, 2)
        parts, _ = integrals(halves)
        refined = parts.reshape(-1, 2).sum(axis=1)
        scale = abs(total) + np.abs(refined).sum()
        rough = np.abs(refined - whole) > tolerance * scale  # NaN compares false and so reaches the total
        total += refined[~rough].sum()
        # A kink leaves one panel to halve; a function that is rough all over would have ever more of them.
        if not rough.any() or len(panels) > 1000 or np.ptp(panels[rough][0]) < narrowest:
            return float(total + refined[rough].sum())
        again = np.repeat(rough, 2)
        panels, whole = halves[again], parts[again]
