"""What theory expects of one tensor."""

from __future__ import annotations

from typing import NamedTuple


class Expected(NamedTuple):
    """Mean and variance that theory expects of a tensor's elements."""

    mean: float
    variance: float
