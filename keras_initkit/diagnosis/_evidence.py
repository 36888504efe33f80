"""Reports as rules read them: one reading a layer and report, in the order of flow."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from keras_initkit.diagnosis._model_context import ModelContext
from keras_initkit.report._report import SignalReport
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._moments import Moments
from keras_initkit.structure._layer_kinds import is_activation, is_normalization, passes_through


@dataclass(frozen=True)
class Reading:
    """What one report says of one layer, all its calls and kernels together.

    Args:
        layer: its path.
        layer_type: its class.
        has_kernel: whether it multiplies what it reads by a matrix; a normalization has weights and no kernel.
        rows: the report's rows of this layer, by kind of tap.
    """

    layer: str
    layer_type: str
    has_kernel: bool = False
    rows: dict[str, list[TensorStats]] = field(default_factory=dict)

    def moments(self, kind: str) -> Moments | None:
        """Of all tensors of a kind; of kernels alone where weights have shapes and there are some."""
        rows = self.rows.get(kind, [])
        if kind.startswith("weight"):
            rows = [row for row in rows if row.shape is None or len(row.shape) > 1] or rows
        merged = Moments.merged(row.moments for row in rows)
        return merged if merged.count else None

    @functools.cached_property
    def output(self) -> Moments | None:
        """Of all its outputs."""
        return self.moments("output")

    @functools.cached_property
    def gradient(self) -> Moments | None:
        """At the output; at the pre-activation where the loss reads the logits."""
        return self.moments("output_gradient") or self.moments("pre_activation_gradient")

    @functools.cached_property
    def weight(self) -> Moments | None:
        """Of its kernels, or of all that it trains where it has none."""
        return self.moments("weight")

    @functools.cached_property
    def weight_gradient(self) -> Moments | None:
        """Of the gradient of these."""
        return self.moments("weight_gradient")

    @functools.cached_property
    def update(self) -> Moments | None:
        """Of what the step added to them."""
        return self.moments("weight_update")

    def share(self, name: str) -> float | None:
        """A share of units, such as `"dead_units"`: the least of the layer's calls."""
        shares = [getattr(row, name) for row in self.rows.get("output", []) if getattr(row, name) is not None]
        return min(shares, default=None)

    def mean_share(self, name: str) -> float | None:
        """A share of elements, such as `"saturated"`: the mean over the layer's calls."""
        shares = [getattr(row, name) for row in self.rows.get("output", []) if getattr(row, name) is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def update_ratio(self) -> float | None:
        """Standard deviation of the update over that of the kernel, where both are finite and the kernel is not 0."""
        weight, update = self.weight, self.update
        if not self.has_kernel or weight is None or update is None or weight.nonfinite or update.nonfinite:
            return None
        return update.stddev / weight.stddev if weight.stddev > 0 else None

    @property
    def rank(self) -> float | None:
        """The effective rank of the output; of several calls the least."""
        return self.share("effective_rank")

    @property
    def units(self) -> int | None:
        """Size of the output's last axis, where its shape is known."""
        shapes = [row.shape for row in self.rows.get("output", []) if row.shape]
        return shapes[0][-1] if shapes else None


@dataclass(frozen=True)
class Evidence:
    """What rules read.

    Args:
        reports: in the order of training.
        structure: what the model says of its layers; `None` without it.
    """

    reports: tuple[SignalReport, ...]
    structure: ModelContext | None = None

    @functools.cached_property
    def readings(self) -> list[dict[str, Reading]]:
        """For each report the layers' readings, by path, in the order of flow."""
        paths = None if self.structure is None else {placed.path for placed in self.structure.kernels}
        return [readings_of(report, paths) for report in self.reports]

    @property
    def is_run(self) -> bool:
        """Whether these are steps of a training run."""
        return len(self.reports) > 1 or any(row.tap.kind == "weight_update" for row in self.reports[0].rows)

    @property
    def first(self) -> dict[str, Reading]:
        """The first report's readings."""
        return self.readings[0]

    @property
    def last(self) -> dict[str, Reading]:
        """The last report's readings."""
        return self.readings[-1]

    @property
    def is_initial(self) -> bool:
        """Whether the first report shows the model before any training step."""
        return self.reports[0].step == 0

    @functools.cached_property
    def outputs(self) -> set[str]:
        """Layers that end in the model's output; of a bare report the last one."""
        return {list(self.last)[-1]} if self.structure is None else self.structure.outputs

    @functools.cached_property
    def scale_free(self) -> set[str]:
        """Layers whose scale is of no consequence: before a normalization, or in a residual branch.

        A bare report shows only normalizations, each of which is taken to read the layer before it.
        """
        if self.structure is not None:
            return self.structure.normalized | self.structure.in_branches
        layers = list(self.last.values())
        return {a.layer for a, b in itertools.pairwise(layers) if is_normalization(b.layer_type)}

    @functools.cached_property
    def trainable(self) -> set[str]:
        """Layers whose weights train, where the model is known."""
        return set() if self.structure is None else self.structure.trainable

    def grown(self, layer: str, reading: Reading) -> bool:
        """Whether a kernel has left the neighbourhood of 0 where some start, so that steps can be measured by it."""
        if self.structure is None:
            return reading.weight is not None and reading.weight.stddev > 1e-3
        return reading.weight is not None and reading.weight.stddev > 0.1 * self.structure.usual_stddev.get(layer, 0.0)

    @functools.cached_property
    def update_ratios(self) -> dict[str, list[float]]:
        """The updates relative to the weights of each kernel layer, a figure for each report."""
        found: dict[str, list[float]] = {}
        for readings in self.readings:
            for layer, reading in readings.items():
                ratio = reading.update_ratio if self.grown(layer, reading) else None
                if ratio is not None:
                    found.setdefault(layer, []).append(ratio)
        return found

    def predicted(self, step: int, layer: str) -> float | None:
        """The variance that theory expects of a layer's output."""
        for report in self.reports:
            for row in report.rows:
                if report.step == step and (row.tap.kind, row.tap.layer) == ("output", layer) and row.predicted:
                    return row.predicted.variance
        return None

    def lasting(self, name: str, number: int = 3) -> dict[str, float]:
        """The least share of units (see `Reading.share`) in the last reports: what lasts over several batches."""
        found: dict[str, float] = {}
        for readings in self.readings[-number:]:
            for layer, reading in readings.items():
                share = reading.share(name)
                if share is not None:
                    found[layer] = min(share, found.get(layer, 1.0))
        return found


def readings_of(report: SignalReport, with_kernel: set[str] | None = None) -> dict[str, Reading]:
    """The layers' readings, in the report's order.

    Args:
        report: the report.
        with_kernel: paths of layers that have kernels; `None` where only the report can tell.
    """
    found: dict[str, Reading] = {}
    matrices = {row.tap.layer for row in report.rows if row.tap.kind == "weight" and len(row.shape or "--") > 1}
    for row in report.rows:
        path, kind = row.tap.layer, row.layer_type
        if path not in found:
            guess = path in matrices and not (passes_through(kind) or is_activation(kind))
            found[path] = Reading(path, kind, guess if with_kernel is None else path in with_kernel)
        found[path].rows.setdefault(row.tap.kind, []).append(row)
    return found


def suffix(layers: Sequence[str], chosen: Iterable[str]) -> list[str]:
    """The chosen layers at the end of `layers` without a gap."""
    chosen = set(chosen)
    found: list[str] = []
    for layer in reversed(layers):
        if layer not in chosen:
            break
        found.insert(0, layer)
    return found
