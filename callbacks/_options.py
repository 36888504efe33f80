"""Checks of what a user asks of LayerStatsCallback, while the error still stands where it was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ON_FINDING = ("warn", "stop", "ignore")


def checked_sample_size(value: int | None) -> int | None:
    """The number of elements, or `None` for all."""
    if value is not None and not _is_whole(value, 1):
        raise ValueError(
            f"sample_size: got {value!r}, expected a number of elements of 1 or more, or None to read every one."
        )
    return value


def checked_histogram_freq(value: int) -> int:
    """The number of epochs between histograms; 0 for none."""
    if not _is_whole(value, 0):
        raise ValueError(f"histogram_freq: got {value!r}, expected a number of epochs, or 0 for no histograms.")
    return value


def checked_on_finding(value: str | Callable) -> str | Callable[[Any], Any]:
    """What to do with a finding."""
    if not callable(value) and value not in ON_FINDING:
        raise ValueError(
            f"on_finding: got {value!r}, expected one of {', '.join(map(repr, ON_FINDING))}, or a function that "
            "takes a Finding."
        )
    return value


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
