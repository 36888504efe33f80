r"""Scales that all units of a narrow layer share at a position, and what gradients make of them.

Given its input x, a layer of random kernel makes units that are independent and Gaussian, all of a variance that is
proportional to $|x|^2$. In a wide network that is one number. Of n units it differs from position to position: if the
elements of x have kurtosis K and share a scale of relative variance v (the `spread` of a `Signal`) themselves, then

    v' = v + (K - 1) / n

Gradients come back through the slopes of later activations, which are larger where signals are, unless slopes are
constant (relu). To first order the mean square of a gradient where the scale is 1 + d is (1 + a d) of the mean: the
`sensitivity` a of a `Gradient`; `own` is the same for the scale of the element's own unit alone. With the powers
$\kappa$ by which $Var[f]$ and $E[f'^2]$ follow the variance q of their argument, an activation y = f(z) makes

    v_y = \kappa_f^2 v_z,    a_z = \kappa_{f'} + \kappa_f a_y

    E[g_z^2] = E[f'^2] E[g_y^2] (1 + \kappa_{f'} \kappa_f a_y v_z)

References:
    - Hanin and Nica (2020), Products of many large random matrices and gradients in deep neural networks,
      https://arxiv.org/abs/1812.05994
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_initkit.prediction.algebra._laws import law_of
from keras_initkit.theory._gains import expectation

MOST = 0.5  # beyond, an expansion in the spread does not hold
_STEP = 0.1  # of relative variance, for the powers


@dataclass(frozen=True)
class Response:
    """How an activation follows the variance of its argument.

    Args:
        output: Float. Power by which the variance of f(z) grows with that of z.
        slope: Float. The same for the mean square of f'(z).
        together: Float. Covariance of f'(z)^2 and (f(z) - E[f])^2 over the product of their means.
        kurtosis: Float. Kurtosis of f(z).
    """

    output: float
    slope: float
    together: float
    kurtosis: float


@functools.lru_cache(maxsize=1024)
def response(function: Callable, mean: float, variance: float) -> Response:
    """Returns how an activation of a Gaussian argument of this mean and variance responds to the variance."""
    middle = expectation(function, 1, False, mean, variance)

    def squares(scale: float) -> float:
        first, second = (expectation(function, power, False, mean, scale * variance) for power in (1, 2))
        return second - 2 * middle * first + middle**2

    def slopes(scale: float) -> float:
        return expectation(function, 2, True, mean, scale * variance)

    def power(function: Callable[[float], float]) -> float:
        low, high = function(1 - _STEP), function(1 + _STEP)
        return (high - low) / (_STEP * (high + low)) if high + low > 0 else 0.0

    of_output, of_slope = power(squares), power(slopes)
    square, slope = squares(1.0), slopes(1.0)
    if not square * slope > 0:
        return Response(of_output, of_slope, 0.0, 3.0)
    # (f - m) f' is the derivative of (f - m)^2 / 2
    joint = expectation(lambda x: (function(x) - middle) ** 2 / 2, 2, True, mean, variance)
    fourth = expectation(lambda x: (function(x) - middle) ** 2, 2, False, mean, variance)
    return Response(of_output, of_slope, joint / (square * slope) - 1, fourth / square**2)


def kurtosis(x: Any) -> float:
    """Returns the kurtosis of a signal's elements, that of a Gaussian where their distribution is not known."""
    if x.gaussian:
        return 3.0
    if x.function is not None and x.argument is not None and x.argument.gaussian and x.argument.variance > 0:
        return response(x.function, x.argument.mean, x.argument.variance).kurtosis
    law = law_of(x)
    square = 0.0 if law is None else float(law.var())
    return 3.0 if law is None or square <= 0 else float(((law - law.mean()) ** 4).mean()) / square**2


def in_windows(x: Any, field: Sequence[int], inside: float) -> float:
    """Returns the part of a spread that means over windows keep: scales follow the squares of correlations.

    Args:
        inside: Float. Number of positions of a window that lie inside the input, on average.
    """
    count = math.prod(field)
    if count == 1 or inside <= 1 or x.within_example is None:
        return 1.0
    common = x.mean**2 if x.between_examples is None else x.between_examples.mean(x.size)
    variance = x.second_moment - common
    if not (math.isfinite(variance) and variance > 0):
        return 1.0
    alike = x.within_example.map(lambda values: np.minimum(((values - common) / variance) ** 2, 1.0))
    between = (alike.windowed(tuple(field), (1,) * len(field)).zero - 1 / count) / (1 - 1 / count)
    return between + (1 - between) / inside


def of_sum(parts: Sequence[tuple[float, float | None]]) -> tuple[float | None, list[float]]:
    """Returns the spread of a sum, and for each part the power by which the scale of the sum follows that of the part.

    Scales of branches that come from one tensor go along, as far as that of the steadier one goes.

    Args:
        parts: Sequence of pairs (mean square, spread) of the parts.
    """
    total = sum(second for second, _ in parts)
    if total <= 0 or all(spread is None for _, spread in parts):
        return None, [1.0] * len(parts)
    shares = [second / total for second, _ in parts]
    spreads = [spread or 0.0 for _, spread in parts]
    crossed = [[min(one, two) for two in spreads] for one in spreads]
    with_whole = [sum(share * each for share, each in zip(shares, row, strict=True)) for row in crossed]
    spread = sum(share * each for share, each in zip(shares, with_whole, strict=True))
    powers = [each / own if own > 0 else share for each, own, share in zip(with_whole, spreads, shares, strict=True)]
    return spread, powers


def follow(gradient: Any, power: float) -> Any:
    """Returns the gradient of a part, by whose scale that of the whole grows with a power."""
    return replace(gradient, sensitivity=gradient.sensitivity * power, own=0.0) if gradient.sensitivity else gradient
