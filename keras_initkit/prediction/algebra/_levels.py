"""How strong a signal is at each position: what attention under a mask, or a token of its own, makes uneven.

Levels are arrays of shape (examples, positions): mean squares over the mean of all. `None` is even. The examples are
those of a sample, in the same order throughout a prediction; one stands for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Levels = np.ndarray | None


def even(levels: np.ndarray) -> Levels:
    """Returns levels of mean 1; `None` where they are all alike."""
    mean = float(levels.mean())
    if not np.isfinite(mean) or mean <= 0 or np.ptp(levels) <= 1e-9 * mean:
        return None
    return levels / mean


def between(levels: Levels) -> float:
    """Returns the mean product of the roots of levels at two different positions."""
    if levels is None or levels.shape[1] < 2:
        return 1.0
    roots, count = np.sqrt(np.maximum(levels, 0.0)), levels.shape[1]
    return float((roots.sum(axis=1) ** 2 - (roots**2).sum(axis=1)).mean()) / (count * (count - 1))


def combine(function: Callable[..., np.ndarray], *levels: Levels) -> np.ndarray | None:
    """Applies a function to levels of several tensors; `None` where no tensor has any, or their sizes differ."""
    known = [each for each in levels if each is not None]
    if not known or len({each.shape[1] for each in known}) > 1:
        return None
    examples = {len(each) for each in known if len(each) > 1}
    one = np.ones((1, known[0].shape[1]))
    given = [one if each is None else each.mean(axis=0, keepdims=True) if len(examples) > 1 else each
             for each in levels]  # fmt: skip
    return function(*given)


def weighted(parts: list[tuple[float, Levels]]) -> Levels:
    """Returns the levels of a sum of independent tensors, given by their mean squares and levels."""
    total = sum(second for second, _ in parts)
    if total <= 0:
        return None
    found = combine(
        lambda *each: sum(second / total * level for (second, _), level in zip(parts, each, strict=True)),
        *(levels for _, levels in parts),
    )
    return None if found is None else even(found)


def inverse_levels(x: Any, square: float, epsilon: float) -> np.ndarray | None:
    """Returns, of a signal, one over the variance at a position, over one over the mean variance."""
    if x.levels is None or x.second_moment <= square:
        return None
    variances = np.maximum(x.levels * x.second_moment - square, 0.0) + epsilon
    return (x.second_moment - square + epsilon) / np.maximum(variances, 1e-300)
