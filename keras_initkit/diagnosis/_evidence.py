"""What rules read: for each report one reading of each layer, in the order of flow."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from dataclasses import dataclass

from keras_initkit.capture._signal_flow import signal_flow
from keras_initkit.diagnosis._readings import LayerReading, collect_readings
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.diagnosis.task._task import Task
from keras_initkit.report._flow import LayerFlow
from keras_initkit.report._health import Decades, Entry, signal_decades, signal_entries
from keras_initkit.report._report import SignalReport
from keras_initkit.structure._layer_kinds import is_embedding, is_normalization
from keras_initkit.theory._thresholds import (
    GROWN_FRACTION,
    GROWN_STDDEV,
    LASTING_REPORTS,
)


@dataclass(frozen=True)
class Evidence:
    """Everything that `diagnose` knows: the reports, and the model where it is given. Every rule reads it.

    Args:
        reports: Tuple of `SignalReport`, in the order of training.
        model: `ModelContext` with the model's kernels and what is around them; `None` if the model is not known.
        task: `Task` with the head, the loss and the labels of each output; `None` if the model is not known.
    """

    reports: tuple[SignalReport, ...]
    model: ModelContext | None = None
    task: Task | None = None

    @functools.cached_property
    def readings(self) -> list[dict[str, LayerReading]]:
        """For each report the readings of its layers, by path, in the order of flow."""
        if self.model is None:
            return [collect_readings(report) for report in self.reports]
        paths, read = {context.path for context in self.model.kernels}, self.model.read
        new = {id(report): report for report in self.reports if id(report) not in read}
        read |= {key: (report, collect_readings(report, paths)) for key, report in new.items()}
        self.model.read = {id(report): read[id(report)] for report in self.reports}
        return [self.model.read[id(report)][1] for report in self.reports]

    @functools.cached_property
    def _known_decades(self) -> dict[int, tuple[Decades, Decades]]:
        return {}

    def decades(self, place: int) -> tuple[Decades, Decades]:
        """Returns how far each judged layer's signal is from where it enters, forward and backward, in one report."""
        place %= len(self.reports)
        if place not in self._known_decades:
            self._known_decades[place] = signal_decades(self._with_flow(self.reports[place]))
        return self._known_decades[place]

    def entries(self, place: int) -> tuple[dict[str, Entry], dict[str, Entry]]:
        """Returns where each judged layer's signal enters, forward and backward, in one report."""
        return signal_entries(self._with_flow(self.reports[place]))

    @functools.cached_property
    def _flow(self) -> tuple[LayerFlow, ...]:
        return () if self.model is None else signal_flow(self.model.model, in_training=self.is_run)

    def _with_flow(self, report: SignalReport) -> SignalReport:
        """Returns a report with what is known of the flow through the model, which one made by hand may lack."""
        return report if report.flow else dataclasses.replace(report, flow=self._flow)

    @functools.cached_property
    def is_run(self) -> bool:
        """Whether the reports are steps of a training run."""
        return len(self.reports) > 1 or any(row.tap.kind == "weight_update" for row in self.reports[0].rows)

    @property
    def first(self) -> dict[str, LayerReading]:
        """Readings of the first report."""
        return self.readings[0]

    @property
    def last(self) -> dict[str, LayerReading]:
        """Readings of the last report."""
        return self.readings[-1]

    @property
    def is_initial(self) -> bool:
        """Whether the first report shows the model before any training step."""
        return self.reports[0].step == 0

    def is_normalization(self, reading: LayerReading) -> bool:
        """Whether a layer normalizes: by what it does if the model is known, by its class otherwise."""
        if self.model is not None:
            return self.model.roles.get(reading.layer) == "normalization"
        return is_normalization(reading.layer_type)

    def is_embedding(self, reading: LayerReading) -> bool:
        """Whether a layer looks up rows of a table."""
        if self.model is not None:
            return self.model.roles.get(reading.layer) == "embedding"
        return is_embedding(reading.layer_type)

    @functools.cached_property
    def outputs(self) -> set[str]:
        """Paths of the layers that end in the model's output.

        If the model is not known, these are the last layer with a kernel and what comes after it, such as its softmax.
        """
        if self.model is not None:
            return self.model.outputs
        layers = list(self.last)
        with_kernel = [place for place, reading in enumerate(self.last.values()) if reading.has_kernel]
        return set(layers[max(with_kernel, default=len(layers) - 1) :])

    @property
    def constants(self) -> set[str]:
        """Paths of layers whose output does not depend on the data, such as tables of positions."""
        return set() if self.model is None else self.model.constants

    @functools.cached_property
    def scale_free(self) -> set[str]:
        """Paths of layers whose scale does not matter, being before a normalization or in a residual branch.

        Without the model only normalizations are seen, and each is assumed to read the layer before it.
        """
        if self.model is not None:
            return self.model.normalized | self.model.in_branches
        layers = list(self.last.values())
        return {a.layer for a, b in itertools.pairwise(layers) if is_normalization(b.layer_type)}

    @property
    def closed(self) -> set[str]:
        """Paths of layers whose scale does not reach an output, however large; as `scale_free` without the model."""
        return self.scale_free if self.model is None else self.model.closed | self.model.normalized

    @property
    def gated(self) -> set[str]:
        """Paths of layers whose output is multiplied by another signal, or only makes such a gate; empty if unknown."""
        return set() if self.model is None else self.model.gated | self.model.only_gating

    @functools.cached_property
    def trainable(self) -> set[str]:
        """Paths of layers whose weights train; empty if the model is not known."""
        return set() if self.model is None else self.model.trainable

    def grown(self, layer: str, reading: LayerReading) -> bool:
        """Whether a kernel has grown away from 0: only then are updates measured relative to it."""
        if self.model is None:
            return reading.weight is not None and reading.weight.stddev > GROWN_STDDEV
        return reading.weight is not None and reading.weight.stddev > GROWN_FRACTION * self.model.usual_stddev.get(
            layer, 0.0
        )

    @functools.cached_property
    def update_ratios(self) -> dict[str, list[float]]:
        """Update ratios of each layer with a kernel, one for each report."""
        found: dict[str, list[float]] = {}
        for readings in self.readings:
            for layer, reading in readings.items():
                ratio = reading.update_ratio if self.grown(layer, reading) else None
                if ratio is not None:
                    found.setdefault(layer, []).append(ratio)
        return found

    def predicted_variance(self, step: int, layer: str) -> float | None:
        """Returns the variance that theory expects of a layer's output."""
        for report in self.reports:
            for row in report.rows:
                if report.step == step and (row.tap.kind, row.tap.layer) == ("output", layer) and row.predicted:
                    return row.predicted.variance
        return None

    def count_examples(self, layer: str) -> int:
        """Returns how many examples the last reports have seen; a training step keeps no shapes and counts as one."""
        last = [readings[layer] for readings in self.readings[-LASTING_REPORTS:] if layer in readings]
        return sum(row.shape[0] if row.shape else 1 for reading in last for row in reading.rows.get("output", []))

    def lasting(self, name: str) -> dict[str, float]:
        """Returns each layer's smallest fraction of units in the last reports: what lasts over several batches."""
        found: dict[str, float] = {}
        for readings in self.readings[-LASTING_REPORTS:]:
            for layer, reading in readings.items():
                fraction = reading.unit_fraction(name)
                if fraction is not None:
                    found[layer] = min(fraction, found.get(layer, 1.0))
        return found
