"""A row of a report: the statistics of one tensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._host import Histogram, iterate_chunks, make_histogram, measure_units
from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._precision import lost_fractions
from keras_initkit.statistics._tap import Tap


@dataclass(frozen=True, slots=True)
class TensorStats:
    """Statistics of one tensor: a row of a report. `None` means not measured or not applicable.

    Args:
        tap: which tensor.
        moments: moments of all its elements.
        layer_type: String. Class of the layer, such as `"Dense"`.
        shape: the tensor's shape, including the batch.
        saturated: Float. Fraction of elements beyond 99 % of the way from the middle of the activation's range to
            an end.
        dead_units: Float. Fraction of units that are zero for every example and position.
        saturated_units: Float. Fraction of units that are saturated for nearly every example and position.
        effective_rank: Float. Exponential of the entropy of the normalized singular values of the tensor as a matrix
            (examples and positions, units).
        gradient_ratio: Float. Standard deviation of the gradient at the layer's output over that at its input.
        float16_lost: Float. Fraction of elements that would become 0 or infinite in float16, though they are neither.
        bfloat16_lost: Float. Likewise in bfloat16.
        histogram: counts and bin edges of the finite elements.
        predicted: mean and variance that theory expects.

    References:
        - Olivier Roy and Martin Vetterli (2007), "The effective rank: A measure of effective dimensionality",
          https://doi.org/10.5281/zenodo.40328
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
    histogram: Histogram | None = field(default=None, repr=False)
    predicted: Expected | None = None
    float16_lost: float | None = None
    bfloat16_lost: float | None = None

    @classmethod
    def from_array(
        cls,
        tap: Tap,
        values: np.ndarray,
        layer_type: str = "",
        *,
        limits: tuple[float, float] | None = None,
        units_axis: int = -1,
        moments: Moments | None = None,
    ) -> TensorStats:
        """Measures one tensor, in float64.

        Outputs, their gradients and pre-activations get a histogram; outputs also the statistics of their units.

        Args:
            tap: which tensor.
            values: Array of shape `(examples, ..., units)`.
            layer_type: String. Class of the layer.
            limits: range of the activation that made the output, where there is one.
            units_axis: Integer. Axis of the units; 1 for channels first.
            moments: moments of the values, where they are known.
        """
        if moments is None:
            moments = Moments.merged(map(Moments.from_array, iterate_chunks(values.reshape(-1))))
        fields: dict[str, Any] = {"layer_type": layer_type, "shape": tuple(values.shape)}
        fields.update({f"{dtype}_lost": fraction for dtype, fraction in lost_fractions(values).items()})
        if tap.kind in ("output", "pre_activation", "output_gradient"):
            fields["histogram"] = make_histogram(values, moments)
        if tap.kind == "output" and values.ndim > 1 and values.size:
            matrix = np.moveaxis(values, units_axis, -1)
            fields.update(measure_units(matrix.reshape(-1, matrix.shape[-1]), limits))
        return cls(tap, moments, **fields)

    @property
    def predicted_stddev(self) -> float | None:
        """Standard deviation that theory expects; `None` where it expects nothing."""
        return None if self.predicted is None else self.predicted.stddev
