"""Checks of what users pass: each returns the value, or says what was received and what is allowed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any


def checked_number(name: str, value: Any, above: float = -math.inf, below: float = math.inf) -> float:
    """`value` as a float strictly between the limits."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and above < value < below):
        limits = [f"above {above:g}"] * (above > -math.inf) + [f"below {below:g}"] * (below < math.inf)
        raise ValueError(f"{name}: got {value!r}, expected {' and '.join(['a finite number', *limits])}.")
    return float(value)


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """`value` as an integer that is not below `least`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: got {value!r}, expected an integer of {least} or more.")
    return int(value)


def checked_shape(shape: Sequence[int], ranks: Sequence[int], meaning: str) -> tuple[int, ...]:
    """`shape` as a tuple, if its rank is among those allowed; `meaning` says what such a shape stands for."""
    sizes = tuple(int(size) for size in shape)
    if len(sizes) not in ranks or any(size < 0 for size in sizes):
        allowed = f"{min(ranks)} to {max(ranks)}" if len(ranks) > 1 else f"{ranks[0]}"
        raise ValueError(f"shape: got {sizes} of rank {len(sizes)}, expected rank {allowed}: {meaning}.")
    return sizes
