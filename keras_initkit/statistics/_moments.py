"""Statistics of one tensor that merge exactly: over batches, replicas, shards and steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean, sum of squared deviations, extremes, zeros and non-finite elements of a tensor.

    Two of them merge to what one pass over both tensors would have given:

        mean = mean_a + d n_b / n,    M2 = M2_a + M2_b + d^2 n_a n_b / n,    d = mean_b - mean_a

    A tensor with a NaN or an infinity has NaN or infinite moments; `nonfinite` says how many there are.

    >>> a, b = Moments.of([1.0, 2.0]), Moments.of([3.0, 6.0])
    >>> a.merge(b).mean, a.merge(b).variance
    (3.0, 3.5)

    Source: Chan, Golub and LeVeque 1979, eq. 2.1.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    zeros: int = 0
    nonfinite: int = 0

    @classmethod
    @np.errstate(invalid="ignore", over="ignore")  # infinities have NaN moments
    def of(cls, values: Any) -> Moments:
        """Moments of an array, in float64 on the host."""
        x = np.asarray(values, dtype="float64").ravel()
        if x.size == 0:
            return cls()
        mean = x.mean()
        return cls(
            x.size,
            float(mean),
            float(((x - mean) ** 2).sum()),
            float(x.min()),
            float(x.max()),
            int((x == 0).sum()),
            int((~np.isfinite(x)).sum()),
        )

    @classmethod
    def from_row(cls, row: Sequence[float]) -> Moments:
        """From what `reduce_on_device` put out, once it is on the host."""
        count, mean, m2, scale, minimum, maximum, zeros, nonfinite = map(float, row)
        return cls(int(count), mean, m2 * scale * scale, minimum, maximum, int(zeros), int(nonfinite))

    def merge(self, other: Moments) -> Moments:
        """Moments of both tensors together."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * other.count / count,
            self.m2 + other.m2 + delta * delta * self.count * other.count / count,
            float(np.fmin(self.minimum, other.minimum)),
            float(np.fmax(self.maximum, other.maximum)),
            self.zeros + other.zeros,
            self.nonfinite + other.nonfinite,
        )

    @classmethod
    def merged(cls, several: Iterable[Moments]) -> Moments:
        """Moments of all the tensors together."""
        total = cls()
        for moments in several:
            total = total.merge(moments)
        return total

    @property
    def variance(self) -> float:
        """Mean squared deviation from the mean (divided by the count, as NumPy does); NaN of nothing."""
        return self.m2 / self.count if self.count else math.nan

    @property
    def mean_square(self) -> float:
        """Mean of the squares; infinite where they overflow."""
        return self.variance + self.mean * self.mean  # not **, which raises where it overflows

    @property
    def stddev(self) -> float:
        """Square root of the variance."""
        return math.sqrt(self.variance)

    @property
    def zero_fraction(self) -> float:
        """Share of elements that are exactly zero; NaN of nothing."""
        return self.zeros / self.count if self.count else math.nan

    def to_dict(self) -> dict[str, float]:
        """The fields by name."""
        return dict(zip([field.name for field in fields(self)], astuple(self), strict=True))


EMPTY_ROW = (0.0, 0.0, 0.0, 1.0, math.inf, -math.inf, 0.0, 0.0)


def widest_float() -> str:
    """The dtype that float64 becomes on this backend: float32 on JAX, unless `jax_enable_x64` is set."""
    if keras.backend.backend() != "jax":
        return "float64"
    return keras.backend.standardize_dtype(keras.ops.convert_to_tensor(np.zeros(())).dtype)


def reduce_on_device(tensor: Any) -> Any:
    """A tensor's moments, computed where the tensor is, as a vector that `Moments.from_row` reads.

    The tensor is read in float32 at least, whatever its dtype; its last axis is summed in that, the rest in
    the `widest_float`. Squares are taken of deviations from the mean in units of the largest one, so that a large
    mean costs no digits, and gradients of 1e-25 do not vanish in their squares.
    """
    ops, wide = keras.ops, widest_float()
    x = tensor if tensor.dtype == "float64" else ops.cast(tensor, "float32")
    x = ops.reshape(x, (1,)) if len(x.shape) == 0 else x

    def total(values: Any) -> Any:
        return ops.sum(ops.cast(ops.sum(values, axis=-1), wide))

    def number_of(condition: Any) -> Any:
        return total(ops.cast(condition, "float32"))

    count = ops.cast(ops.size(x), wide)
    mean = total(x) / ops.maximum(count, 1.0)
    centre = ops.cast(mean, x.dtype)
    deviation = x - centre
    scale = ops.max(ops.abs(deviation), initial=0.0)
    scale = ops.where(scale > 0, scale, ops.ones_like(scale))
    # What rounding the mean has added to the deviations is taken off again.
    rounding = ops.cast((mean - ops.cast(centre, wide)) / ops.cast(scale, wide), wide)
    m2 = total(ops.square(deviation / scale)) - count * ops.square(rounding)
    extremes = [ops.min(x, initial=math.inf), ops.max(x, initial=-math.inf)]
    # The mean of equal values is off by its rounding, which would leave them a variance, or one below 0.
    constant = ops.logical_and(ops.equal(*extremes), ops.isfinite(extremes[0]))
    m2 = ops.where(constant, ops.zeros_like(m2), ops.maximum(m2, 0))
    counts = [number_of(ops.equal(x, 0)), number_of(ops.logical_not(ops.isfinite(x)))]
    return ops.stack([ops.cast(field, wide) for field in (count, mean, m2, scale, *extremes, *counts)])
