"""The verdict on an initializer: activations and gradients before training, and whether the model learned."""

from __future__ import annotations

import math

# How much a variance may change from the first to the last hidden layer, as a factor.
_STEADY, _LOST = 10.0, 1000.0


def trend(first: float, last: float) -> str:
    """Returns what happens to a variance on its way from `first` to `last`.

    Example:

    >>> trend(1.0, 0.5), trend(1.0, 0.05), trend(1.0, 1e-9), trend(1.0, 50.0), trend(1.0, float("inf"))
    ('steady', 'fades', 'vanishes', 'grows', 'explodes')
    """
    if first == 0 or last == 0:
        return "vanishes"
    ratio = last / first
    if math.isnan(ratio) or ratio > _LOST:
        return "explodes"
    if ratio > _STEADY:
        return "grows"
    if ratio >= 1 / _STEADY:
        return "steady"
    return "fades" if ratio >= 1 / _LOST else "vanishes"


def learned(accuracy: float, chance: float, examples: int) -> bool:
    """Returns whether a test accuracy is five standard errors above that of naming the most frequent class."""
    return accuracy > chance + 5 * math.sqrt(max(chance * (1 - chance), 1e-9) / examples)


def verdict(
    forward: tuple[float, float], backward: tuple[float, float], accuracy: float, chance: float, examples: int
) -> str:
    """Returns the verdict as a line for a table.

    Args:
        forward: Variance of the activations at the first and at the last hidden layer, before training.
        backward: Variance of the gradients at the last hidden layer, where they enter, and at the first.
        chance: Test accuracy of naming the most frequent class.
        examples: Number of test examples.

    Example:

    >>> verdict((1.0, 0.9), (1e-4, 2e-4), 0.95, 0.1, 360)
    'signal steady, learns'
    >>> verdict((1.0, 1e-7), (1e-4, 1e-11), 0.1, 0.1, 360)
    'signal vanishes, does not learn'
    >>> verdict((1.0, 0.8), (1e-4, 1e-6), 0.5, 0.1, 360)
    'signal steady, gradient fades, learns'
    """
    ahead, back = trend(*forward), trend(*backward)
    signal = f"signal {ahead}" if ahead == back else f"signal {ahead}, gradient {back}"
    return f"{signal}, {'learns' if learned(accuracy, chance, examples) else 'does not learn'}"
