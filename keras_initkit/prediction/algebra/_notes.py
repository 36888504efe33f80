"""What prediction knows of a tensor beside its moments, for the calls that read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from keras_initkit.prediction.algebra._signals import Signal


@dataclass(frozen=True, eq=False)
class Squared:
    """The tensor is the square of this one."""

    of: Signal


@dataclass(frozen=True, eq=False)
class Centered:
    """The tensor is this one less its mean over the units."""

    of: Signal


@dataclass(frozen=True, eq=False)
class Statistic:
    """The tensor is `gain * (multiple * s + epsilon) ** exponent`, with a statistic s over the units of a signal.

    Args:
        of: The signal.
        kind: String. `"mean"`, `"mean_square"` or `"variance"`.
        multiple: Float. The number of units where they are added up.
        epsilon: Float.
        exponent: Float.
        gain: Float.
    """

    of: Signal
    kind: str
    multiple: float = 1.0
    epsilon: float = 0.0
    exponent: float = 1.0
    gain: float = 1.0


@dataclass(frozen=True, eq=False)
class Offset:
    """The tensor is a signal plus tensors of known values, such as the mask of an attention.

    Args:
        of: The signal.
        values: Functions that return what is added.
    """

    of: Signal
    values: tuple[Callable[[], np.ndarray], ...]


@dataclass(frozen=True, eq=False)
class Mixing:
    r"""The tensor holds weights p that sum to 1 along an axis: a softmax.

    Args:
        axis: Integer. That axis.
        size: Integer. Its number of elements n.
        squares: Float. $E[\sum_s p_s^2]$, one over the effective number of elements.
        total: Float. $E[(\sum_s p_s)^2]$: 1, or less where some sums are masked throughout.
        overlap: Float. $E[\sum_s p_s p'_s]$ of two sets of weights for the same elements.
        products: Float. $E[\sum_{s \neq r} p_s p_r]$.
        spread: Float. $E[\sum_s p_s^2 (1 - 2 p_s + \sum_r p_r^2)]$: what a gradient that differs from element to
            element leaves of its square.
        pairs: Array of shape (examples, queries, elements). $E[p_s^2]$, where a mask or bias makes them uneven.
        totals: Array of shape (examples, queries). $E[(\sum_s p_s)^2]$, likewise.
        spreads: The same for `spread`.
    """

    axis: int
    size: int
    squares: float
    total: float
    overlap: float
    products: float
    spread: float
    pairs: np.ndarray | None = None
    totals: np.ndarray | None = None
    spreads: np.ndarray | None = None

    def dropped(self, kept: float) -> Mixing:
        """Returns the weights after a dropout that keeps this fraction, and divides by it."""
        pairs = None if self.pairs is None else self.pairs / kept
        totals = None
        if self.pairs is not None and self.totals is not None:
            totals = self.totals + self.pairs.sum(axis=-1) * (1 / kept - 1)
        return replace(self, squares=self.squares / kept, pairs=pairs, totals=totals)
