"""Statistics of one tensor on the host: in float64, a chunk at a time, because a copy of the whole may not fit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_initkit.statistics._moments import Moments
from keras_initkit.theory._thresholds import SATURATED_FRACTION, SATURATION_DEPTH

Histogram = tuple[tuple[int, ...], tuple[float, ...]]  # counts and bin edges

CHUNK = 2**18  # elements; 2 MiB in float64
RANK_ROWS, RANK_UNITS = 4096, 2048
BINS = 50
_LARGEST = np.finfo("float64").max / 4  # what is larger counts in the last bin


def iterate_chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yields rows of a matrix, or elements of a vector, some at a time, in float64."""
    step = max(1, CHUNK // max(1, values[:1].size))
    for start in range(0, len(values), step):
        yield values[start : start + step].astype("float64")


def make_histogram(values: np.ndarray, moments: Moments) -> Histogram | None:
    """Returns counts and edges of 50 equal bins over the finite elements; `None` if there are none."""
    low, high = moments.minimum, moments.maximum
    if moments.nonfinite:
        finite = [chunk[np.isfinite(chunk)] for chunk in iterate_chunks(values.reshape(-1))]
        low = min((chunk.min() for chunk in finite if chunk.size), default=np.inf)
        high = max((chunk.max() for chunk in finite if chunk.size), default=-np.inf)
    if not low <= high:
        return None
    # The extremes may be too far apart or too close to each other for bins between them.
    low, high = max(low, -_LARGEST), min(high, _LARGEST)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        middle = low / 2 + high / 2
        half = max(high / 2 - low / 2, 0.5e-6 * abs(middle), 1e-30)
        low, high = middle - half, middle + half
    edges = np.linspace(low, high, BINS + 1)
    counts = np.zeros(BINS, int)
    for chunk in iterate_chunks(values.reshape(-1)):
        counts += np.histogram(np.clip(chunk[np.isfinite(chunk)], low, high), BINS, (low, high))[0]
    return tuple(counts.tolist()), tuple(edges.tolist())


def measure_units(matrix: np.ndarray, limits: tuple[float, float] | None) -> dict[str, float | None]:
    """Measures the units of a matrix (examples and positions, units): the fields of `TensorStats` with these names.

    A unit is dead if it is zero for every example: half of a healthy ReLU layer's *elements* are zero. An element is
    saturated beyond 99 % of the way from the middle of the activation's range to an end, a unit if at least 95 % of
    its elements are. An open end in `limits` saturates nothing.
    """
    units = matrix.shape[1]
    low, high = limits or (-np.inf, np.inf)
    bounded = bool(np.isfinite([low, high]).all())
    middle, half = (low / 2 + high / 2, high / 2 - low / 2) if bounded else (0.0, np.inf)
    alive, saturated = np.zeros(units, bool), np.zeros(units, int)
    for chunk in iterate_chunks(matrix):
        alive |= (chunk != 0).any(axis=0)
        if bounded:
            saturated += (np.abs(chunk - middle) > SATURATION_DEPTH * half).sum(axis=0)
    return {
        "dead_units": float(1 - alive.mean()),
        "saturated": float(saturated.sum() / matrix.size) if bounded else None,
        "saturated_units": float((saturated >= SATURATED_FRACTION * len(matrix)).mean()) if bounded else None,
        "effective_rank": effective_rank(matrix),
    }


def effective_rank(matrix: np.ndarray) -> float | None:
    r"""Returns the exponential of the entropy of the normalized singular values.

    .. math:: \exp\left(-\sum_i p_i \log p_i\right), \quad p_i = \sigma_i / \sum_j \sigma_j

    Of a matrix with more than 4096 rows or 2048 columns only that many are used, evenly spread.

    Example:

    >>> effective_rank(np.eye(3)), effective_rank(np.ones((5, 4)))
    (3.0, 1.0)

    References:
        - Olivier Roy and Martin Vetterli (2007), "The effective rank: A measure of effective dimensionality",
          https://doi.org/10.5281/zenodo.40328
    """
    rows, columns = (
        np.unique(np.linspace(0, size - 1, min(size, cap)).round().astype(int))
        for size, cap in zip(matrix.shape, (RANK_ROWS, RANK_UNITS), strict=True)
    )
    sample = matrix[rows][:, columns].astype("float64")
    scale = np.abs(sample).max()  # squares of 1e200 or 1e-200 leave the range of float64
    if not np.isfinite(scale):
        return None
    if scale == 0:
        return 0.0
    sample /= scale
    gram = sample @ sample.T if len(sample) < sample.shape[1] else sample.T @ sample
    eigenvalues = np.linalg.eigvalsh(gram)
    # Squares carry half the digits: what is smaller is rounding, not a direction.
    eigenvalues = eigenvalues[eigenvalues > eigenvalues[-1] * len(gram) * np.finfo(float).eps]
    fractions = np.sqrt(eigenvalues) / np.sqrt(eigenvalues).sum()
    return round(float(np.exp(-(fractions * np.log(fractions)).sum())), 10)
