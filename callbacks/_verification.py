"""What two training steps leave different, and how that is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_SHOWN = 5  # differences in a text


@dataclass(frozen=True)
class Difference:
    """A variable or a log that two steps leave different.

    Args:
        path: String. The variable's path after `weights/`, `optimizer/` or `metrics/`, or `logs/<name>`.
        elements: Integer. Number of elements whose bits differ.
        size: Integer. Number of all elements.
        largest: Float. Largest absolute difference; NaN where one of the two is.
        units: Integer. Largest difference in units in the last place.
    """

    path: str
    elements: int
    size: int
    largest: float
    units: int

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.elements} of {self.size} elements, by up to {self.largest:.2g} "
            f"({self.units} units in the last place)"
        )


@dataclass(frozen=True)
class Verification:
    """What `verify` has found. Printed, it says so in sentences.

    Args:
        model: String. Name of the model.
        compared: String. What was compared, such as `"4 weights and seeds, 1 logs"`.
        measured: Boolean. Whether the step could be measured.
        differences: Tuple of `Difference`, empty if all bits are equal.
        repeats: Boolean. Whether plain steps from one state are equal among themselves.
        layers: Tuple of strings. Paths of the layers whose reading alone makes a difference.
    """

    model: str
    compared: str
    measured: bool
    differences: tuple[Difference, ...] = ()
    repeats: bool = True
    layers: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether the step is the same to the last bit."""
        return not self.differences

    def __str__(self) -> str:
        step = f"One step of {self.model!r}"
        if not self.measured:
            return (
                f"{step} could not be measured, and was the plain step; a warning says why. "
                "Training goes on as without the callback."
            )
        if self.equal:
            return (
                f"One step of {self.model!r} is the same to the last bit with and without measuring: {self.compared}."
            )
        lines = [
            f"One step of {self.model!r} differs when it is measured, in {len(self.differences)} of {self.compared}:"
        ]
        lines += [f"  {difference}" for difference in self.differences[:_SHOWN]]
        if len(self.differences) > _SHOWN:
            lines.append(f"  and {len(self.differences) - _SHOWN} more")
        return "\n".join([*lines, self._reason()])

    def _reason(self) -> str:
        if not self.repeats:
            return (
                "Plain steps from the same state differ among themselves too, so no two trainings of this model are "
                "equal. Causes: random numbers of the framework without a seed (tf.random); a GPU without "
                "deterministic operations (tf.config.experimental.enable_op_determinism); on TensorFlow, a sum of "
                "three tensors or more, one of which something else reads as well."
            )
        if self.layers:
            names = ", ".join(map(repr, self.layers))
            return (
                f"The difference comes from reading {names}: what reads a tensor there changes how the framework "
                "computes it together with what follows. Leave these layers out by LayerStatsCallback(layers=...), "
                "and report the model as a bug of keras-initkit."
            )
        return "No layer makes a difference by itself. Report the model as a bug of keras-initkit."


def find_differences(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> Iterator[Difference]:
    for path, value in first.items():
        other = second[path]
        if value.tobytes() != other.tobytes():
            elements = int(np.count_nonzero(_bits(value) != _bits(other)))
            largest = np.max(np.abs(np.subtract(value, other, dtype="float64")))
            yield Difference(path, elements, value.size, float(largest), int(np.abs(_rank(value) - _rank(other)).max()))


def _bits(array: np.ndarray) -> np.ndarray:
    return np.atleast_1d(array).view(f"int{8 * array.dtype.itemsize}")


def _rank(array: np.ndarray) -> np.ndarray:
    """Returns integers that number the values of the array's type in order, so that neighbors differ by one."""
    bits = _bits(array).astype("int64")
    if array.dtype.kind in "iub":
        return bits
    return np.where(bits < 0, -(bits & (2 ** (8 * array.dtype.itemsize - 1) - 1)), bits)
