"""One reading of each layer in a report: its rows by kind of tensor, and what follows from them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from keras_initkit.report._report import SignalReport
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._moments import Moments
from keras_initkit.structure._layer_kinds import is_activation, passes_through
from keras_initkit.theory._thresholds import (
    EQUAL_TOLERANCE,
    SMALLEST_NORMAL,
)

_NO_KERNELS = "bias|beta|gamma|alpha|scale|offset|gain|mean|variance|position|embedding|token|state"  # by name


@dataclass(frozen=True)
class LayerReading:
    """The measurements of one layer in one report, with all its calls and kernels.

    Args:
        layer: String. Path of the layer.
        layer_type: String. Name of its class.
        has_kernel: Boolean. Whether it multiplies what it reads by a matrix; a normalization has weights and no kernel.
        rows: Dictionary of lists of `TensorStats`. The report's rows of this layer, by kind of tensor.
    """

    layer: str
    layer_type: str
    has_kernel: bool = False
    rows: dict[str, list[TensorStats]] = field(default_factory=dict)

    def moments(self, kind: str) -> Moments | None:
        """Merges the moments of all tensors of a kind; of weights, those of the kernels if there are any."""
        rows = self.rows.get(kind, [])
        if kind.startswith("weight"):
            rows = [row for row in rows if _is_kernel(row)] or rows
        merged = Moments.merged(row.moments for row in rows)
        return merged if merged.count else None

    @property
    def kernel_rows(self) -> list[TensorStats]:
        """The rows of weights with two axes or more that are not named otherwise, which may be kernels."""
        return [row for row in self.rows.get("weight", []) if _is_kernel(row)]

    @functools.cached_property
    def output(self) -> Moments | None:
        """Moments of all outputs of the layer."""
        return self.moments("output")

    @functools.cached_property
    def gradient(self) -> Moments | None:
        """Moments of the gradient at the output, or at the pre-activation if the loss reads the logits."""
        return self.moments("output_gradient") or self.moments("pre_activation_gradient")

    @functools.cached_property
    def weight(self) -> Moments | None:
        """Moments of the kernels, or of all weights if there are no kernels."""
        return self.moments("weight")

    @functools.cached_property
    def weight_gradient(self) -> Moments | None:
        """Moments of the gradient of these weights."""
        return self.moments("weight_gradient")

    @functools.cached_property
    def update(self) -> Moments | None:
        """Moments of what the step added to these weights."""
        return self.moments("weight_update")

    def statistics(self, name: str) -> list[float]:
        """Collects a field of `TensorStats`, such as `"dead_units"`, from each output that has it."""
        return [value for row in self.rows.get("output", []) if (value := getattr(row, name)) is not None]

    def unit_fraction(self, name: str) -> float | None:
        """Returns a fraction of units, such as `"dead_units"`: the smallest of the layer's calls."""
        return min(self.statistics(name), default=None)

    @property
    def update_ratio(self) -> float | None:
        """Standard deviation of the update over that of the kernel; `None` of constant or non-finite kernels."""
        weight, update = self.weight, self.update
        if not self.has_kernel or weight is None or update is None or weight.nonfinite or update.nonfinite:
            return None
        return update.stddev / weight.stddev if weight.stddev > 0 else None

    @property
    def rank(self) -> float | None:
        """Effective rank of the output, the smallest of several calls."""
        return self.unit_fraction("effective_rank")

    @property
    def units(self) -> int | None:
        """Size of the last axis of the output, if its shape is known."""
        shapes = [row.shape for row in self.rows.get("output", []) if row.shape]
        return shapes[0][-1] if shapes else None


def _is_kernel(row: TensorStats) -> bool:
    """Whether a weight may be a kernel: a GRU's bias has two axes too, as have gains over several axes."""
    name = row.tap.name.rpartition("/")[2]
    return (row.shape is None or len(row.shape) > 1) and not re.search(_NO_KERNELS, name)


def collect_readings(report: SignalReport, with_kernel: set[str] | None = None) -> dict[str, LayerReading]:
    """Groups a report's rows by layer, in its order; without `with_kernel`, layers with kernels are guessed."""
    found: dict[str, LayerReading] = {}
    matrices = {row.tap.layer for row in report.rows if row.tap.kind == "weight" and len(row.shape or "--") > 1}
    for row in report.rows:
        path, kind = row.tap.layer, row.layer_type
        if path not in found:
            guess = path in matrices and not (passes_through(kind) or is_activation(kind))
            found[path] = LayerReading(path, kind, guess if with_kernel is None else path in with_kernel)
        found[path].rows.setdefault(row.tap.kind, []).append(row)
    return found


def take_suffix(layers: Sequence[str], chosen: Iterable[str]) -> list[str]:
    """Returns the chosen layers at the end of `layers`, up to the first gap."""
    chosen = set(chosen)
    found: list[str] = []
    for layer in reversed(layers):
        if layer not in chosen:
            break
        found.insert(0, layer)
    return found


def is_constant(moments: Moments) -> bool:
    """Whether all elements have one value, up to rounding."""
    size = max(abs(moments.minimum), abs(moments.maximum))
    return moments.maximum - moments.minimum <= EQUAL_TOLERANCE * size


def is_zero(moments: Moments) -> bool:
    """Whether all elements are 0, or so small that some processors take them for 0."""
    return not moments.nonfinite and max(abs(moments.minimum), abs(moments.maximum)) < SMALLEST_NORMAL
