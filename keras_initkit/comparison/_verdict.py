"""The verdict on an initializer: activations and gradients before training, and whether the model learned."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_initkit.theory._thresholds import HEALTHY_FACTOR


def trend(variances: Sequence[float]) -> str:
    """Returns what happens to a variance on its way, by the layer that is farthest from where the signal enters.

    Args:
        variances: Variance at each hidden layer, in the order in which the signal passes them.

    Example:

    >>> trend([1.0, 0.5, 2e-4]), trend([1.0, 1e-9, 1.0]), trend([1.0, float("inf")])
    ('healthy', 'vanishes', 'explodes')
    """
    if not all(map(math.isfinite, variances)):
        return "explodes"
    if not all(variances):
        return "vanishes"
    # Logarithms one by one: the quotient may be too large for a number.
    decades = max((math.log10(variance) - math.log10(variances[0]) for variance in variances), key=abs)
    if abs(decades) <= math.log10(HEALTHY_FACTOR):
        return "healthy"
    return "vanishes" if decades < 0 else "explodes"


def learned(accuracy: float, chance: float, examples: int) -> bool:
    """Returns whether a test accuracy is five standard errors above that of naming the most frequent class."""
    return accuracy > chance + 5 * math.sqrt(max(chance * (1 - chance), 1e-9) / examples)


def verdict(forward: Sequence[float], backward: Sequence[float], accuracy: float, chance: float, examples: int) -> str:
    """Returns the verdict as a line for a table.

    Args:
        forward: Variance of the activations at each hidden layer, before training.
        backward: Variance of the gradients there. They enter at the last layer.
        accuracy: Test accuracy after training.
        chance: Test accuracy of naming the most frequent class.
        examples: Number of test examples.

    Example:

    >>> verdict([1.0, 0.9], [2e-4, 1e-4], 0.95, 0.1, 360)
    'signal healthy, learns'
    >>> verdict([1.0, 1e-7], [1e-11, 1e-4], 0.1, 0.1, 360)
    'signal vanishes, does not learn'
    >>> verdict([1.0, 0.8], [1e-9, 1e-4], 0.5, 0.1, 360)
    'signal healthy, gradient vanishes, learns'
    """
    ahead, back = trend(forward), trend(backward[::-1])
    signal = f"signal {ahead}" if ahead == back else f"signal {ahead}, gradient {back}"
    return f"{signal}, {'learns' if learned(accuracy, chance, examples) else 'does not learn'}"
