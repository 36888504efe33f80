"""What was measured at one point of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keras_initkit.prediction import Expected
from keras_initkit.signal.moments import Moments
from keras_initkit.structure.taps import Tap

# Name of a statistic, as tags and tables show it: the kind of tap and the property of its moments.
STATISTICS = {
    "activation_mean": ("output", "mean"),
    "activation_variance": ("output", "variance"),
    "activation_gradient_variance": ("output_gradient", "variance"),
    "weight_variance": ("weight", "variance"),
    "weight_gradient_variance": ("weight_gradient", "variance"),
}
Histogram = tuple[tuple[int, ...], tuple[float, ...]]


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class SignalReport:
    """Statistics of every tensor that was read, at one point of training.

    Args:
        rows: one for each tensor, layers in the order in which they were called. A tensor that was not there
            (a frozen layer's gradient) has none.
        step: number of training steps done before the measured one.
        epoch: the epoch of the measured step, from 0.
        model: name of the model.
        notes: what a reader has to know: where inputs or gradients came from, what could not be read or predicted.
    """

    rows: tuple[TensorStats, ...]
    step: int = 0
    epoch: int = 0
    model: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of_step(cls, step: int, epoch: int, moments: Mapping[Tap, Moments]) -> SignalReport:
        """What one training step showed."""
        return cls(tuple(TensorStats(tap, values) for tap, values in moments.items()), step, epoch)

    @property
    def moments(self) -> dict[Tap, Moments]:
        """The moments by tap."""
        return {row.tap: row.moments for row in self.rows}

    @property
    def layers(self) -> list[str]:
        """Paths of the measured layers, in the report's order."""
        return list(dict.fromkeys(row.tap.layer for row in self.rows))

    def statistic(self, name: str) -> dict[str, float]:
        """One statistic by layer, such as `"activation_variance"`.

        Raises:
            ValueError: for an unknown name.
        """
        if name not in STATISTICS:
            raise ValueError(f"statistic: got {name!r}, expected one of {', '.join(map(repr, STATISTICS))}.")
        kind, field = STATISTICS[name]
        return {tap.layer: getattr(moments, field) for tap, moments in self.moments.items() if tap.kind == kind}

    def scalars(self) -> dict[str, float]:
        """Every statistic of every layer, by its tag `<statistic>/<layer>`."""
        return {f"{name}/{layer}": value for name in STATISTICS for layer, value in self.statistic(name).items()}
