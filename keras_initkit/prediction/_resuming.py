"""Where theory is too uncertain, and what it still says where prediction resumes from measured moments."""

from __future__ import annotations

from typing import Any

from keras_initkit.prediction._signals import Signal

_CHANCE = 0.35  # relative standard deviation of a mean square


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
