"""Statistics of one tensor that merge exactly: over batches, replicas, shards and steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, NamedTuple

import numpy as np


class MomentRow(NamedTuple):
    """The columns of a row of moments as a device computes them, in this order.

    Squared deviations are in units of `scale`, the largest deviation, because squares of 1e-25 vanish in float32.
    """

    count: Any
    mean: Any
    scaled_m2: Any
    scale: Any
    minimum: Any
    maximum: Any
    zeros: Any
    nonfinite: Any = None  # counted elsewhere


@dataclass(frozen=True, slots=True)
class Moments:
    r"""Count, mean, sum of squared deviations (M2), extremes, zeros and non-finite elements of a tensor.

    Moments of two tensors merge to the moments of both together:

    .. math::
        d = \mu_b - \mu_a, \quad \mu = \mu_a + d \frac{n_b}{n}, \quad
        M_2 = M_{2,a} + M_{2,b} + d^2 \frac{n_a n_b}{n}

    A tensor with a NaN or an infinity has NaN or infinite moments, and extremes as NumPy has them; `nonfinite` says
    how many such elements there are.

    Example:

    >>> a, b = Moments.from_array([1.0, 2.0]), Moments.from_array([3.0, 6.0])
    >>> a.merge(b).mean, a.merge(b).variance
    (3.0, 3.5)

    References:
        - Tony F. Chan, Gene H. Golub and Randall J. LeVeque (1982), "Updating formulae and a pairwise algorithm for
          computing sample variances", https://doi.org/10.1007/978-3-642-51461-6_3
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
    def from_array(cls, values: Any) -> Moments:
        """Returns the moments of an array, computed in float64 on the host."""
        x = np.asarray(values, dtype="float64").ravel()
        if x.size == 0:
            return cls()
        mean, low, high = x.mean(), float(x.min()), float(x.max())
        deviations = x - mean
        finite = math.isfinite(low) and math.isfinite(high)  # NaN is the least and the largest, if there is one
        return cls(
            x.size,
            float(mean),
            float(np.square(deviations, out=deviations).sum()),
            low,
            high,
            x.size - int(np.count_nonzero(x)),
            0 if finite else int((~np.isfinite(x)).sum()),
        )

    of = from_array

    @classmethod
    def from_row(cls, values: Sequence[float]) -> Moments:
        """Returns the moments in a row that a device computed, with the columns of `MomentRow`."""
        row = MomentRow(*map(float, values))
        m2 = row.scaled_m2 * row.scale * row.scale
        return cls(int(row.count), row.mean, m2, row.minimum, row.maximum, int(row.zeros), int(row.nonfinite))

    @np.errstate(invalid="ignore")
    def merge(self, other: Moments) -> Moments:
        """Returns the moments of both tensors together."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / count
        if not math.isfinite(delta):  # an infinity less an infinity is NaN, where one pass has an infinity
            mean = self.mean * (self.count / count) + other.mean * (other.count / count)
        return Moments(
            count,
            mean,
            self.m2 + other.m2 + delta * delta * self.count * other.count / count,
            float(np.minimum(self.minimum, other.minimum)),  # NaN if either is, as in one pass
            float(np.maximum(self.maximum, other.maximum)),
            self.zeros + other.zeros,
            self.nonfinite + other.nonfinite,
        )

    @classmethod
    def merged(cls, several: Iterable[Moments]) -> Moments:
        """Returns the moments of all the tensors together."""
        total = cls()
        for moments in several:
            total = total.merge(moments)
        return total

    @property
    def variance(self) -> float:
        """Mean squared deviation from the mean (divided by the count, as in NumPy); NaN for an empty tensor."""
        return self.m2 / self.count if self.count else math.nan

    @property
    def mean_square(self) -> float:
        """Mean of the squares; infinite if they overflow."""
        return self.variance + self.mean * self.mean  # not **, which raises where it overflows

    @property
    def stddev(self) -> float:
        """Square root of the variance."""
        return math.sqrt(self.variance)

    @property
    def zero_fraction(self) -> float:
        """Fraction of elements that are exactly zero; NaN for an empty tensor."""
        return self.zeros / self.count if self.count else math.nan

    def to_dict(self) -> dict[str, float]:
        """Returns the fields by name."""
        return dict(zip([field.name for field in fields(self)], astuple(self), strict=True))
