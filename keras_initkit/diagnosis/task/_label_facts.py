"""What rules know of labels and inputs: small summaries of arrays."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST = 2_000_000  # elements of labels or inputs that are looked at
FEW_CLASSES = 1000


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one output.

    Args:
        values: Array of shape `(examples, ...)`.
        weights: Array of the examples' weights; `None` where all count the same.
        batches: Tuple of integers. Number of examples in each batch that `fit` took; empty outside of `fit`.
    """

    values: np.ndarray
    weights: np.ndarray | None = None
    batches: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Their shape, examples first."""
        return self.values.shape

    @functools.cached_property
    def _weighted(self) -> np.ndarray:
        """The labels that have a weight, up to a number of them."""
        values, weights = self.values, self.weights
        if weights is not None and weights.shape == values.shape[: weights.ndim]:
            values = values[weights != 0]
        return values[: max(1, LARGEST // max(1, values[:1].size))]

    @functools.cached_property
    def counted(self) -> np.ndarray:
        """The finite labels that have a weight, as a vector of float64."""
        flat = np.asarray(self._weighted, "float64").ravel()
        return flat[np.isfinite(flat)]

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """The least and the largest label."""
        return (float(self.counted.min()), float(self.counted.max())) if self.counted.size else (0.0, 0.0)

    @functools.cached_property
    def are_integers(self) -> bool:
        """Whether all labels are whole numbers."""
        return bool((self.counted == np.round(self.counted)).all())

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """The different labels; many of them where they are no classes."""
        return np.unique(self.counted)

    @functools.cached_property
    def row_sums(self) -> np.ndarray:
        """Sum of the last axis, of each example or position."""
        return self._weighted.reshape(-1, self.shape[-1]).sum(-1, dtype="float64")

    @functools.cached_property
    def are_one_hot(self) -> bool:
        """Whether each row of the last axis has a single one among zeros."""
        binary = self.values.ndim > 1 and self.shape[-1] > 1 and set(self.classes.tolist()) <= {0.0, 1.0}
        return binary and bool((self.row_sums == 1).all())

    @functools.cached_property
    def sequence(self) -> np.ndarray | None:
        """One class for each example, in order; `None` where the examples have no single class."""
        if len(self.values) == 0:
            return None
        rows = self.values.reshape(len(self.values), -1)
        if rows.shape[1] > 1:
            return rows.argmax(-1) if self.values.ndim == 2 and self.are_one_hot else None
        return rows[:, 0]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is known of one array of inputs.

    Args:
        place: Integer. Its place among the model's inputs.
        examples: Integer. Number of examples.
        is_float: Boolean. Whether it holds numbers, and not indices.
        least: Array of the least value of each feature.
        largest: Array of the largest value of each feature.
        broken: Array of integers. Number of examples in which each feature is NaN or infinite.
    """

    place: int
    examples: int
    is_float: bool
    least: np.ndarray
    largest: np.ndarray
    broken: np.ndarray

    @property
    def is_constant(self) -> bool:
        """Whether no feature differs between examples."""
        return self.examples > 1 and bool((self.least == self.largest).all())

    def merged(self, other: Inputs) -> Inputs:
        """Returns what is known of two batches."""
        if self.least.shape != other.least.shape:  # sequences of other lengths
            return self
        return Inputs(
            self.place,
            self.examples + other.examples,
            self.is_float,
            np.minimum(self.least, other.least),
            np.maximum(self.largest, other.largest),
            self.broken + other.broken,
        )


def describe_inputs(arrays: Sequence[np.ndarray]) -> list[Inputs]:
    """Returns what is known of a model's inputs."""
    found = []
    for place, array in enumerate(arrays):
        if array.ndim == 0 or not len(array) or array.dtype.kind not in "biuf":
            continue
        rows = array.reshape(len(array), -1)
        rows = rows[: max(2, LARGEST // max(1, rows.shape[1]))]
        if not rows.shape[1]:
            continue
        finite = np.isfinite(rows) if rows.dtype.kind == "f" else np.ones(1, bool)
        known: Any = rows if finite.all() else np.where(finite, rows, 0)
        broken = np.zeros(rows.shape[1], int) if finite.all() else (~finite).sum(0)
        is_float = array.dtype.kind == "f"
        found.append(Inputs(place, len(rows), is_float, known.min(0), known.max(0), broken))
    return found
