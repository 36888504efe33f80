"""Statistics of one tensor on the host: in float64, a chunk at a time, because a copy of the whole may not fit."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_initkit.statistics._moments import Moments
from keras_initkit.theory._thresholds import SATURATED_FRACTION, SATURATION_DEPTH

Histogram = tuple[tuple[int, ...], tuple[float, ...]]  # counts and bin edges

CHUNK = 2**14  # elements; 128 KiB in float64, which stay in a cache
RANK_ROWS, RANK_UNITS = 2048, 512
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
    if high - low <= max(1e-12 * max(abs(low), abs(high)), 1e-300):  # the inverse of what is smaller overflows
        middle = low / 2 + high / 2
        half = max(high / 2 - low / 2, 0.5e-6 * abs(middle), 1e-30)
        low, high = middle - half, middle + half
    edges = np.linspace(low, high, BINS + 1)
    counts = np.zeros(BINS, int)
    within = not moments.nonfinite and low <= moments.minimum and moments.maximum <= high
    for chunk in iterate_chunks(values.reshape(-1)):
        inside = chunk if within else np.clip(chunk[np.isfinite(chunk)], low, high)
        counts += np.bincount(_bins(inside, edges), minlength=BINS)
    return tuple(counts.tolist()), tuple(edges.tolist())


def _bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns the number of the bin of each value, as `np.histogram` counts them, in a third of its time."""
    low, high = edges[0], edges[-1]
    places = (values - low) * (BINS / (high - low))
    bins = places.astype(np.intp)
    unsure = np.flatnonzero(np.abs(places - bins - 0.5) > 0.5 - 1e-9)  # at an edge, rounding decides
    unsure = unsure[places[unsure] > 0.5]
    bins[unsure] = np.searchsorted(edges, values[unsure], side="right") - 1
    return np.minimum(bins, BINS - 1, out=bins)


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
    step = max(1, CHUNK // max(1, units))
    for start in range(0, len(matrix), step):
        chunk = matrix[start : start + step]
        alive |= (chunk != 0).any(axis=0)
        if bounded:
            chunk = chunk.astype("float64")
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

    Of a matrix with more than 2048 rows or 512 columns only that many are used, evenly spread: decompositions of larger
    ones would take most of the time of a probe.

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
    sample = matrix if len(rows) == len(matrix) else matrix[rows]
    sample = (sample if len(columns) == sample.shape[1] else sample[:, columns]).astype("float64")
    scale = np.abs(sample).max()  # squares of 1e200 or 1e-200 leave the range of float64
    if not np.isfinite(scale):
        return None
    if scale == 0:
        return 0.0
    sample /= scale
    with _one_thread():
        gram = sample @ sample.T if len(sample) < sample.shape[1] else sample.T @ sample
        eigenvalues = np.linalg.eigvalsh(gram)
    # Squares carry half the digits: what is smaller is rounding, not a direction.
    eigenvalues = eigenvalues[eigenvalues > eigenvalues[-1] * len(gram) * np.finfo(float).eps]
    fractions = np.sqrt(eigenvalues) / np.sqrt(eigenvalues).sum()
    return round(float(np.exp(-(fractions * np.log(fractions)).sum())), 10)


def _one_thread() -> contextlib.AbstractContextManager:
    """Has NumPy compute in one thread.

    Its threads and those of TensorFlow wait for each other: a decomposition then takes up to ten times as long.
    """
    return _linear_algebra().limit(limits=1)


@functools.cache
def _linear_algebra() -> Any:
    from threadpoolctl import ThreadpoolController  # looks through all loaded libraries

    return ThreadpoolController().select(user_api="blas")
