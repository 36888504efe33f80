"""Where theory is too uncertain, and what it still says where prediction resumes from measured moments."""

from __future__ import annotations

import math
from typing import Any

from keras_initkit.prediction.algebra._signals import Gradient, Signal

# Relative standard deviation of a mean square, at most: then 95 % of draws (1.96 standard deviations) lie within a
# factor of 1.3 of what theory expects.
_CHANCE = math.log(1.3) / 1.96


def is_doubtful(gradient: Gradient) -> bool:
    """Whether the error of a gradient may be as large as one that is left to chance.

    The mean of one over a batch's variance is known to first order in that variance's fluctuation, which is therefore a
    bound of the error (of a chi square it is the second order that is left out).
    """
    return gradient.doubt > _CHANCE


def is_by_chance(x: Signal, units: int | None) -> bool:
    """Whether the draw of a few weights decides on a mean square: few units that are much alike in all examples.

    The relative variance of the mean square over draws is 2 / units times the mean square of correlations.
    """
    x = x.argument if x.argument is not None and x.argument.axes is None else x
    if units is None or not x.gaussian or x.axes is not None or x.between_examples is None or x.second_moment <= 0:
        return False
    alike = x.between_examples.map(lambda values: (values / x.second_moment) ** 2).mean(x.size)
    return 2 * alike / units > _CHANCE**2


def moved_to(guess: Signal, seen: Signal) -> dict[str, Any]:
    """Returns the correlations of a guess, moved to what was measured."""
    scale = seen.variance / guess.variance
    return guess.map_autocorrelations(
        lambda lags: lags.map(lambda values: seen.mean**2 + scale * (values - guess.mean**2))
    )
