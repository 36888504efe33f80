"""Which measured values are healthy: the one rule that tables and figures show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from keras_initkit.report._layer_rows import LayerRow
from keras_initkit.theory._thresholds import HEALTHY_FACTOR

Band = tuple[float, float]
Mark = Literal["", "outside", "alarm"]
MARKS: tuple[Mark, ...] = ("", "outside", "alarm")  # from healthy to broken


def healthy_bands(rows: Sequence[LayerRow]) -> tuple[Band | None, Band | None]:
    """Returns the ranges of healthy variances, forward and backward: a factor of 10 around where the signal enters.

    Forward, the signal enters with the output of the first layer that reads one (an embedding makes a signal, on a
    scale that the next layers need not keep); backward, with the gradient at the last layer. Where that variance is
    0 or not finite, the next one that is neither counts. `None` where nothing was measured.
    """
    entries = ([row.output for row in rows if row.reads_signal], [row.gradient for row in reversed(rows)])
    bands: list[Band | None] = []
    for stats in entries:
        variances = [each.moments.variance for each in stats if each is not None]
        entry = next((v for v in variances if v > 0 and math.isfinite(v)), None)
        bands.append(None if entry is None else (entry / HEALTHY_FACTOR, entry * HEALTHY_FACTOR))
    return bands[0], bands[1]


def mark_stddev(stddev: float, band: Band | None) -> Mark:
    """Marks a standard deviation of 0 or one that is not finite as alarming, a variance outside the band as such."""
    if not math.isfinite(stddev) or stddev == 0:
        return "alarm"
    return "outside" if band is not None and not band[0] <= stddev**2 <= band[1] else ""


def mark_units(fraction: float, threshold: float) -> Mark:
    """Marks a layer that has lost more than this fraction of its units."""
    return "outside" if fraction > threshold else ""
