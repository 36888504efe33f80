"""Reports as rules read them: one reading a layer and report, in the order of flow."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import keras

from keras_initkit.diagnosis.circumstances import Circumstances
from keras_initkit.signal.moments import Moments
from keras_initkit.signal.report import SignalReport, TensorStats


@dataclass(frozen=True)
class Reading:
    """What one report says of one layer, all its calls and kernels together.

    Args:
        layer: its path.
        layer_type: its class.
        rows: the report's rows of this layer, by kind of tap.
    """

    layer: str
    layer_type: str
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
        model: the model that they speak of, where it is known.
    """

    reports: tuple[SignalReport, ...]
    model: keras.Model | None = None

    @functools.cached_property
    def structure(self) -> Circumstances | None:
        """What the model says of its layers; `None` without it."""
        return None if self.model is None else Circumstances(self.model)

    @functools.cached_property
    def readings(self) -> list[dict[str, Reading]]:
        """For each report the layers' readings, by path, in the order of flow."""
        return [readings_of(report) for report in self.reports]

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

    def lasting(self, name: str, number: int = 3) -> dict[str, float]:
        """The least share of units (see `Reading.share`) in the last reports: what lasts over several batches."""
        found: dict[str, float] = {}
        for readings in self.readings[-number:]:
            for layer, reading in readings.items():
                share = reading.share(name)
                if share is not None:
                    found[layer] = min(share, found.get(layer, 1.0))
        return found


def readings_of(report: SignalReport) -> dict[str, Reading]:
    """The layers' readings, in the report's order."""
    found: dict[str, Reading] = {}
    for row in report.rows:
        reading = found.setdefault(row.tap.layer, Reading(row.tap.layer, row.layer_type))
        reading.rows.setdefault(row.tap.kind, []).append(row)
    return found


def suffix(layers: Sequence[str], chosen: Iterable[str]) -> list[str]:
    """The chosen layers at the end of `layers` without a gap."""
    chosen, found = set(chosen), []
    for layer in reversed(layers):
        if layer not in chosen:
            break
        found.insert(0, layer)
    return found
