"""What theory expects of one tensor."""

from __future__ import annotations

import math
from typing import NamedTuple


class Expected(NamedTuple):
    """Mean and variance that theory expects of a tensor's elements."""

    mean: float
    variance: float

    @property
    def stddev(self) -> float:
        """Square root of the variance; NaN where that is negative or NaN."""
        return math.sqrt(self.variance) if self.variance >= 0 else math.nan
