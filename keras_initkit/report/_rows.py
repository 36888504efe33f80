"""A row of a report: the statistics of one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._host import Histogram, chunks_of, histogram, unit_statistics
from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._tap import Tap


@dataclass(frozen=True, slots=True)
class TensorStats:
    """Statistics of one tensor: a row of a report. `None` stands for what was not asked or does not apply.

    Args:
        tap: which tensor.
        moments: of all its elements.
        layer_type: class of the layer, such as `"Dense"`.
        shape: the tensor's shape, the batch included.
        saturated: share of elements beyond 99 % of the way from the middle of the activation's range to an end.
        dead_units: share of units that are zero for every example and position.
        saturated_units: share of units saturated for nearly every example and position.
        effective_rank: exponential of the entropy of the normalized singular values (Roy and Vetterli 2007) of
            the tensor as a matrix (examples and positions, units).
        gradient_ratio: standard deviation of the gradient at the layer's output over that at its input.
        histogram: counts and bin edges of the finite elements.
        predicted: what theory expects here.
    """

    tap: Tap
    moments: Moments
    layer_type: str = ""
    shape: tuple[int, ...] | None = None
    saturated: float | None = None
    dead_units: float | None = None
    saturated_units: float | None = None
    effective_rank: float | None = None
    gradient_ratio: float | None = None
    histogram: Histogram | None = None
    predicted: Expected | None = None


def tensor_stats(
    tap: Tap,
    values: np.ndarray,
    layer_type: str = "",
    *,
    limits: tuple[float, float] | None = None,
    units_axis: int = -1,
) -> TensorStats:
    """A report's row for one tensor.

    Args:
        tap: which tensor; an output gets the statistics of its units; it, its gradient, a pre-activation a histogram.
        values: shape (examples, ..., units).
        layer_type: class of the layer.
        limits: range of the activation that put the output out, where there is one.
        units_axis: axis of the units; 1 for channels first.
    """
    moments = Moments.merged(Moments.of(chunk) for chunk in chunks_of(values.reshape(-1)))
    row: dict[str, Any] = {"moments": moments, "layer_type": layer_type, "shape": tuple(values.shape)}
    if tap.kind in ("output", "pre_activation", "output_gradient"):
        row["histogram"] = histogram(values, moments)
    if tap.kind == "output" and values.ndim > 1 and values.size:
        matrix = np.moveaxis(values, units_axis, -1)
        row.update(unit_statistics(matrix.reshape(-1, matrix.shape[-1]), limits))
    return TensorStats(tap, **row)
