"""Statistics of one tensor on the host: in float64, a chunk at a time, so that no copy of the whole is made."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._unit_activity import SATURATION_DEPTH, SATURATION_SHARE

Histogram = tuple[tuple[int, ...], tuple[float, ...]]  # counts and bin edges

CHUNK = 2**18  # elements; 2 MiB in float64
RANK_ROWS, RANK_UNITS = 4096, 2048
BINS = 50


def chunks_of(values: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of a matrix, or elements of a vector, some at a time, in float64."""
    step = max(1, CHUNK // max(1, values[:1].size))
    for start in range(0, len(values), step):
        yield values[start : start + step].astype("float64")


def histogram(values: np.ndarray, moments: Moments) -> Histogram | None:
    """Counts and edges of 50 equal bins over the finite elements; `None` if there are none."""
    low, high = moments.minimum, moments.maximum
    if moments.nonfinite:
        finite = [chunk[np.isfinite(chunk)] for chunk in chunks_of(values.reshape(-1))]
        low = min((chunk.min() for chunk in finite if chunk.size), default=np.inf)
        high = max((chunk.max() for chunk in finite if chunk.size), default=-np.inf)
    if not low <= high:
        return None
    # Numbers too close to each other, or too far apart, for bins between them.
    if high - low <= 1e-12 * max(abs(low), abs(high)) or not np.isfinite(high - low):
        middle = low / 2 + high / 2
        half = max(high / 2 - low / 2, 0.5e-6 * abs(middle), 1e-30)
        low, high = middle - half, middle + half
    edges = np.linspace(low, high, BINS + 1)
    counts = np.zeros(BINS, int)
    for chunk in chunks_of(values.reshape(-1)):
        counts += np.histogram(chunk[np.isfinite(chunk)], BINS, (low, high))[0]
    return tuple(counts.tolist()), tuple(edges.tolist())


def unit_statistics(matrix: np.ndarray, limits: tuple[float, float] | None) -> dict[str, float | None]:
    """Dead and saturated units, share of saturated elements and effective rank of (examples, units)."""
    units = matrix.shape[1]
    low, high = limits or (-np.inf, np.inf)
    bounded = bool(np.isfinite([low, high]).all())
    middle, half = (low / 2 + high / 2, high / 2 - low / 2) if bounded else (0.0, np.inf)
    alive, saturated = np.zeros(units, bool), np.zeros(units, int)
    for chunk in chunks_of(matrix):
        alive |= (chunk != 0).any(axis=0)
        if bounded:
            saturated += (np.abs(chunk - middle) > SATURATION_DEPTH * half).sum(axis=0)
    return {
        "dead_units": float(1 - alive.mean()),
        "saturated": float(saturated.sum() / matrix.size) if bounded else None,
        "saturated_units": float((saturated >= SATURATION_SHARE * len(matrix)).mean()) if bounded else None,
        "effective_rank": effective_rank(matrix),
    }


def effective_rank(matrix: np.ndarray) -> float | None:
    """Exponential of the entropy of the normalized singular values; `None` where they are not finite.

    A matrix of more than 4096 rows or 2048 columns stands by that many of them, evenly spread.

    Args:
        matrix: shape (examples and positions, units).

    >>> effective_rank(np.eye(3)), effective_rank(np.ones((5, 4)))
    (3.0, 1.0)

    Source: Roy and Vetterli 2007.
    """
    rows, columns = (
        np.unique(np.linspace(0, size - 1, min(size, cap)).round().astype(int))
        for size, cap in zip(matrix.shape, (RANK_ROWS, RANK_UNITS), strict=True)
    )
    sample = matrix[rows][:, columns].astype("float64")
    scale = np.abs(sample).max()  # squares of 1e200 or of 1e-200 have no place in float64
    if not np.isfinite(scale):
        return None
    if scale == 0:
        return 0.0
    sample /= scale
    gram = sample @ sample.T if len(sample) < sample.shape[1] else sample.T @ sample
    eigenvalues = np.linalg.eigvalsh(gram)
    # Squares carry half the digits: what is below is rounding, not a direction.
    eigenvalues = eigenvalues[eigenvalues > eigenvalues[-1] * len(gram) * np.finfo(float).eps]
    shares = np.sqrt(eigenvalues) / np.sqrt(eigenvalues).sum()
    return round(float(np.exp(-(shares * np.log(shares)).sum())), 10)
