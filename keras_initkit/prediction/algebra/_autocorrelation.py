"""The autocorrelation of a tensor over its positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_LONGEST = 64  # lags kept one by one along an axis; a convolution reaches as far as its kernel


class Autocorrelation:
    """$E[x_a x_{a+d}]$ as a function of the lag d between two positions, averaged over positions a.

    Short lags have a value each. Beyond them the function is periodic, most often constant: a transposed convolution
    of stride s treats every s-th position alike.

    Args:
        near: Array. Values for lags from -reach to reach along each axis of positions; its sizes are odd.
        far: Array. Values of all other lags, by the lag modulo this array's sizes.
    """

    def __init__(self, near: np.ndarray, far: np.ndarray):
        self.near: np.ndarray = np.asarray(near, "float64")
        self.far: np.ndarray = np.asarray(far, "float64")

    @classmethod
    def white(cls, second_moment: float, far: float, axes: int) -> Autocorrelation:
        """Returns the function that is `second_moment` at lag 0 and `far` at all others."""
        return cls(np.full((1,) * axes, second_moment), np.full((1,) * axes, far))

    @property
    def axes(self) -> int:
        """Number of axes of positions."""
        return self.near.ndim

    @property
    def reach(self) -> tuple[int, ...]:
        """The longest lag along each axis that has a separate value."""
        return tuple(size // 2 for size in self.near.shape)

    @property
    def zero(self) -> float:
        """The value at lag 0: the second moment."""
        return float(self.near[self.reach])

    @property
    def flat(self) -> bool:
        """Whether all lags but 0 have one value."""
        return self.near.size == 1 and self.far.size == 1

    def at(self, lags: Sequence[np.ndarray]) -> np.ndarray:
        """Returns values at lags, given as one integer array for each axis."""
        if not self.axes:
            return self.near
        lags = np.broadcast_arrays(*lags)
        inside = np.logical_and.reduce([np.abs(lag) <= reach for lag, reach in zip(lags, self.reach, strict=True)])
        clipped = tuple(np.clip(lag + r, 0, 2 * r) for lag, r in zip(lags, self.reach, strict=True))
        folded = tuple(lag % size for lag, size in zip(lags, self.far.shape, strict=True))
        return np.where(inside, self.near[clipped], self.far[folded])

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Autocorrelation:
        """Applies a function to every value."""
        return Autocorrelation(function(self.near), function(self.far))

    def __add__(self, other: Autocorrelation) -> Autocorrelation:
        return self._combined(other, np.add)

    def __mul__(self, other: Autocorrelation) -> Autocorrelation:
        return self._combined(other, np.multiply)

    def _combined(self, other: Autocorrelation, function: Callable) -> Autocorrelation:
        reach = [max(pair) for pair in zip(self.reach, other.reach, strict=True)]
        period = [math.lcm(*pair) for pair in zip(self.far.shape, other.far.shape, strict=True)]
        return _tabulate(lambda lags: function(self.at(lags), other.at(lags)), reach, period)

    def strided(self, strides: Sequence[int]) -> Autocorrelation:
        """Returns the autocorrelation of every s-th position."""
        reach = [r // s for r, s in zip(self.reach, strides, strict=True)]
        period = [size // math.gcd(size, s) for size, s in zip(self.far.shape, strides, strict=True)]
        return _tabulate(lambda lags: self.at([lag * s for lag, s in zip(lags, strides, strict=True)]), reach, period)

    def dilated(self, strides: Sequence[int]) -> Autocorrelation:
        """Returns that of positions s apart with independent ones between, as a transposed convolution makes them."""
        reach = [r * s for r, s in zip(self.reach, strides, strict=True)]
        period = [size * s for size, s in zip(self.far.shape, strides, strict=True)]

        def value(lags: list[np.ndarray]) -> np.ndarray:
            met = np.all([lag % s == 0 for lag, s in zip(lags, strides, strict=True)], axis=0)
            return np.where(met, self.at([lag // s for lag, s in zip(lags, strides, strict=True)]), 0.0)

        return _tabulate(value, reach, period)

    def windowed(self, window: Sequence[int], strides: Sequence[int]) -> Autocorrelation:
        """Returns that of means over windows: the mean over all pairs of positions in two windows."""
        reach = [(r + p - 1) // s for r, p, s in zip(self.reach, window, strides, strict=True)]
        period = [size // math.gcd(size, s) for size, s in zip(self.far.shape, strides, strict=True)]

        def value(lags: list[np.ndarray]) -> np.ndarray:
            total = np.zeros(lags[0].shape)
            for shift in itertools.product(*(range(1 - p, p) for p in window)):
                weight = math.prod((p - abs(e)) / p**2 for e, p in zip(shift, window, strict=True))
                moved = [lag * s + e for lag, s, e in zip(lags, strides, shift, strict=True)]
                total += weight * self.at(moved)
            return total

        return _tabulate(value, reach, period)

    def repeated(self, sizes: Sequence[int]) -> Autocorrelation:
        """Returns that of positions that are each repeated, averaged over the place among the copies."""
        reach = [(r + 1) * s for r, s in zip(self.reach, sizes, strict=True)]
        period = [size * s for size, s in zip(self.far.shape, sizes, strict=True)]

        def value(lags: list[np.ndarray]) -> np.ndarray:
            total = np.zeros(lags[0].shape)
            for place in itertools.product(*(range(s) for s in sizes)):
                total += self.at([(lag + a) // s for lag, a, s in zip(lags, place, sizes, strict=True)])
            return total / math.prod(sizes)

        return _tabulate(value, reach, period)

    def mean(self, size: Sequence[int | None]) -> float:
        """Averages over all pairs of positions of a map of this size; `None` is an endless axis."""
        if not self.axes:
            return self.zero
        known = [n for n in size if n is not None]
        if len(known) < len(size):
            return float(self.far.mean())
        lags = np.meshgrid(*(np.arange(1 - n, n) for n in known), indexing="ij", sparse=True)
        weights = [(n - np.abs(lag)) / n**2 for n, lag in zip(known, lags, strict=True)]
        return float((self.at(lags) * math.prod(weights)).sum())

    def transposed(self, order: Sequence[int] | np.ndarray) -> Autocorrelation:
        """Returns the function with its axes in another order."""
        return Autocorrelation(self.near.transpose(order), self.far.transpose(order))

    def within(self, kept: Sequence[int]) -> Autocorrelation:
        """Returns the function of the lags along some axes, the others being 0."""
        near = tuple(slice(None) if axis in kept else reach for axis, reach in enumerate(self.reach))
        far = tuple(slice(None) if axis in kept else 0 for axis in range(self.axes))
        return Autocorrelation(self.near[near], self.far[far])

    def constant(self) -> bool:
        """Whether all lags have the value of lag 0."""
        return bool(np.ptp(self.near) <= 1e-12 * abs(self.zero) and np.all(np.abs(self.far - self.zero) <= 1e-12))

    def full(self, size: Sequence[int | None]) -> Autocorrelation | None:
        """Returns the function with all lags of a map of this size one by one; `None` if they are too many."""
        if None in size or math.prod(2 * n - 1 for n in size if n) > 2**18 or any(n > _LONGEST for n in size if n):
            return None
        lags = np.meshgrid(*(np.arange(1 - n, n) for n in size if n), indexing="ij")
        return Autocorrelation(self.at(lags), np.full((1,) * len(size), self.far.mean())) if size else self

    def outer(self, other: Autocorrelation, size: Sequence[int | None], other_size: Sequence[int | None]) -> Any:
        """Returns the product over the axes of both, of maps of these sizes; `None` where it would be too large."""
        if (not self.axes or self.constant()) and (not other.axes or other.constant()):
            axes = self.axes + other.axes
            return Autocorrelation.white(self.zero * other.zero, self.zero * other.zero, axes)
        one, two = self.full(size), other.full(other_size)
        if one is None or two is None or one.near.size * two.near.size > 2**20:
            return None
        return Autocorrelation(np.multiply.outer(one.near, two.near), np.multiply.outer(one.far, two.far))

    def off_zero(self, size: Sequence[int | None]) -> float:
        """Averages over all pairs of different positions of a map of this size."""
        if None in size or not self.axes:
            return float(self.far.mean())
        count = math.prod(n for n in size if n)
        return self.zero if count == 1 else (self.mean(size) * count - self.zero) / (count - 1)

    def reshaped(self, before: Sequence[int], after: Sequence[int]) -> Autocorrelation | None:
        """Returns the function over one axis split into several, or several merged into one."""
        if self.flat:
            return Autocorrelation.white(self.zero, float(self.far.flat[0]), len(after))
        if len(before) == 1:
            lags = np.meshgrid(*(np.arange(1 - n, n) for n in after), indexing="ij")
            strides = [math.prod(after[place + 1 :]) for place in range(len(after))]
            if math.prod(2 * n - 1 for n in after) > 2**18 or max(after) > _LONGEST:
                return None
            whole = np.sum([lag * stride for lag, stride in zip(lags, strides, strict=True)], axis=0)
            return Autocorrelation(self.at([whole]), np.full((1,) * len(after), self.far.mean()))
        count = math.prod(before)
        if len(after) > 1 or count > 2**12:
            return None
        reach = min(count - 1, _LONGEST)
        places = np.unravel_index(np.arange(count), tuple(before))
        near = np.zeros(2 * reach + 1)
        for lag in range(reach + 1):
            moved = [place[lag:] - place[: count - lag] for place in places]
            near[reach + lag] = near[reach - lag] = self.at(moved).mean()
        weights = count - np.abs(np.arange(-reach, reach + 1))
        rest = count**2 - weights.sum()
        far = (self.mean(before) * count**2 - (near * weights).sum()) / rest if rest else near.mean()
        return Autocorrelation(near, np.full((1,), far))


def _tabulate(value: Callable, reach: Sequence[int], period: Sequence[int]) -> Autocorrelation:
    """Tabulates `value` at each lag up to `reach` and over one period of the rest."""
    if not reach:
        return Autocorrelation(value([]), value([]))
    reach = [min(r, _LONGEST) for r in reach]
    near = np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij")
    # One period that starts beyond the reach, in a place where the lag modulo the period is 0.
    start = [p * (_LONGEST * 1000 // p) for p in period]
    far = np.meshgrid(*(np.arange(s, s + p) for s, p in zip(start, period, strict=True)), indexing="ij")
    return Autocorrelation(value(near), value(far))
