"""What of a tensor would be lost in half precision."""

from __future__ import annotations

import numpy as np

from keras_initkit.statistics._sampling import spread_places

_ELEMENTS = 2**16  # that are looked at, evenly spread
# What rounds to 0, and what rounds to infinity: half of the least and half a step beyond the largest number.
LIMITS = {"float16": (2.0**-25, 65520.0), "bfloat16": (2.0**-134, (2 - 2.0**-8) * 2.0**127)}


def lost_fractions(values: np.ndarray) -> dict[str, float | None]:
    """Returns by data type the fraction of elements that would become 0 or infinite, though they are neither.

    Args:
        values: Array. Of more than 65,536 elements so many are looked at, spread over all.

    Example:

    >>> lost_fractions(np.array([0.0, 1.0, 1e-9, 1e5]))
    {'float16': 0.5, 'bfloat16': 0.0}
    """
    flat = values.reshape(-1)
    if not flat.size:
        return dict.fromkeys(LIMITS)
    chosen = flat if flat.size <= _ELEMENTS else flat[spread_places(_ELEMENTS, flat.size).astype(int)]
    sizes = np.abs(chosen.astype("float64"))
    nonzero, finite = sizes > 0, np.isfinite(sizes)
    return {
        dtype: float(((nonzero & (sizes <= least)) | (finite & (sizes >= largest))).mean())
        for dtype, (least, largest) in LIMITS.items()
    }
