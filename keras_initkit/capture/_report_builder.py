"""What a probe has read so far: each tensor's statistics, in the order in which it came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_initkit.inputs._batches import find_nonfinite
from keras_initkit.report._rows import TensorStats
from keras_initkit.report._scalars import first_nonfinite
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._tap import KINDS, SIGNALS, Tap
from keras_initkit.structure._layer_kinds import output_limits
from keras_initkit.structure._layer_paths import held_weights
from keras_initkit.structure._weights import is_quantization_state


class ReportBuilder:
    """Collects the rows of a report; gradients are divided by `scale`, the factor of the loss."""

    def __init__(self, model: keras.Model, layers: Mapping[str, keras.layers.Layer], scale: float):
        self._model, self._layers, self._scale = model, layers, scale
        self._ranges = {path: output_limits(layer) for path, layer in layers.items()}
        self._rows: dict[Tap, TensorStats] = {}
        self._last: tuple[np.ndarray | None, bool, Moments | None] = None, False, None
        self._unreadable: dict[str, None] = {}
        self._broken_data: str | None = None
        self._extra: list[str] = []

    def read(self, tap: Tap, values: np.ndarray | None) -> None:
        """Takes the statistics of a tensor; `None` is one that cannot be read."""
        if values is None:
            self._unreadable[tap.layer] = None
            return
        # What one layer puts out the next one mostly reads, and the gradients come back likewise.
        before, was_scaled, known = self._last
        scaled = tap.kind not in (*SIGNALS, "weight") and self._scale != 1
        same = before is not None and scaled == was_scaled and np.array_equal(before, values)
        read = values
        if scaled:
            values = values.astype("float64") / self._scale
        layer = self._layers[tap.layer]
        self._rows[tap] = TensorStats.from_array(
            tap,
            values,
            type(layer).__name__,
            limits=self._ranges[tap.layer],
            units_axis=1 if getattr(layer, "data_format", None) == "channels_first" else -1,
            moments=known if same else None,
        )
        self._last = read, scaled, self._rows[tap].moments

    def read_data(self, x: Any) -> None:
        """Looks for what is not finite in the data itself."""
        found = find_nonfinite(x)
        if found is not None:
            place, broken = found
            name = "" if place is None else f" {place}"
            self._broken_data = f"the data, input{name}, example {int(np.argmax(broken))}"

    def read_weights(self) -> None:
        """Reads the weights, each with the layer that holds it."""
        weights = list(_weights(self._model))
        self._taps_of_weights = {id(variable): tap for tap, variable in weights}
        for tap, variable in weights:
            self.read(tap, keras.ops.convert_to_numpy(variable.value))

    def read_weight_gradients(
        self, variables: Sequence[keras.Variable], gradients: Sequence[np.ndarray | None]
    ) -> None:
        """Reads the gradients of the weights, where there are any."""
        for variable, gradient in zip(variables, gradients, strict=True):
            tap = self._taps_of_weights.get(id(variable))
            if gradient is not None and tap is not None:
                self.read(tap._replace(kind="weight_gradient"), gradient)

    def note(self, text: str) -> None:
        """Has the report say something."""
        self._extra.append(text)

    @property
    def notes(self) -> list[str]:
        """What a reader of the rows has to know."""
        notes = list(self._extra)
        row = first_nonfinite(self._ordered_rows())
        if self._broken_data is not None:
            notes.insert(0, f"NaN or infinity first appears in {self._broken_data}.")
        elif row is not None:
            place = f"{row.tap.kind} {row.tap.name}".strip().replace("_", " ")
            call = f" (call {row.tap.call})" if row.tap.call else ""
            count = f"{row.moments.nonfinite} of {row.moments.count}"
            notes.insert(0, f"NaN or infinity first appears in the {place} of {row.tap.layer}{call}: {count}.")
        if self._unreadable:
            notes.append(f"Inside a traced function, a loop or a scan, so not read: {', '.join(self._unreadable)}.")
        return notes

    @property
    def moments(self) -> dict[Tap, Moments]:
        """The moments of what was read, by tap."""
        return {tap: row.moments for tap, row in self._rows.items()}

    def rows(self, expected: Mapping[Tap, Expected]) -> tuple[TensorStats, ...]:
        """Returns the rows, layers in the order in which they were called, each with what is expected of it."""
        return tuple(
            replace(row, gradient_ratio=self._gradient_ratio(row.tap), predicted=expected.get(row.tap))
            for row in self._ordered_rows()
        )

    def _ordered_rows(self) -> list[TensorStats]:
        called = dict.fromkeys(tap.layer for tap in self._rows if tap.call is not None)
        order = {path: place for place, path in enumerate([*called, *(p for p in self._layers if p not in called)])}

        weights = {(tap.layer, tap.name): number for number, tap in enumerate(self._taps_of_weights.values())}

        def place(tap: Tap) -> tuple:
            number = weights[tap.layer, tap.name] if tap.call is None else 0
            layer, call, kind = order[tap.layer], tap.call or 0, KINDS.index(tap.kind)
            return layer, tap.call is None, call, number, kind, len(tap.name), tap.name

        return [self._rows[tap] for tap in sorted(self._rows, key=place)]

    def _gradient_ratio(self, tap: Tap) -> float | None:
        """The standard deviation of an output's gradient over that of the gradients at the same call's inputs."""
        if tap.kind != "output_gradient":
            return None
        at_inputs = Moments.merged(
            row.moments
            for other, row in self._rows.items()
            if (other.kind, other.layer, other.call) == ("input_gradient", tap.layer, tap.call)
        )
        if not at_inputs.variance > 0:  # NaN where there are none
            return None
        return self._rows[tap].moments.stddev / at_inputs.stddev


def _weights(model: keras.Model) -> Iterator[tuple[Tap, keras.Variable]]:
    """Every float weight, named after the innermost layer that holds it."""
    names: set[tuple[str, str]] = set()
    for path, layer, weight in held_weights(model):
        is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(weight.dtype))
        if not is_float or is_quantization_state(layer, weight):
            continue
        name, number = weight.name, 1
        while (path, name) in names:
            name, number = f"{weight.name}_{number}", number + 1
        names.add((path, name))
        yield Tap("weight", path, None, name), weight
