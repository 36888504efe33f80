"""What the step meters of all backends have in common: standing in for the training function, and sharing a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_initkit.capture.step._reduction import MeasurementSpec, rows_of
from keras_initkit.capture.step._targets import taps_of, with_activation
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._layer_kinds import output_limits

FindLayers = Callable[[keras.Model], dict[str, keras.layers.Layer]]


class StepMeter:
    """Measures single training steps of `model`, for itself and for others that want the same step.

    `fit` looks up `model.train_function` at every step; for a measured one it finds a method of this object there,
    once. A backend's meter says in `_measured` what is run instead.

    Args:
        model: a compiled model.
        find_layers: returns the layers of a built model that are to be read, by path.
        reading: what is read of them.
    """

    def __init__(self, model: keras.Model, find_layers: FindLayers, reading: MeasurementSpec):
        self._model, self._find_layers, self._reading = model, find_layers, reading
        self._asking: list[StepMeter] = [self]  # all the meters that this one measures for
        self._source: StepMeter = self  # the meter that measures for this one
        self._histograms = False
        self._layers: dict[str, keras.layers.Layer] = {}
        self._limits: dict[str, tuple[float, float]] = {}
        self._taps: list[Tap] = []
        self._activated: dict[str, keras.layers.Layer] = {}  # those whose pre-activations are read
        self._own: tuple[list[Tap], list[Tap]] = ([], [])  # what was measured last, and what of it was asked for here
        self._matrix: Any = None
        self._replaced_function: Any = None

    def arm(self, histograms: bool = False) -> None:
        """Have the next training step measured. Whatever becomes of it, the one after is a plain one."""
        model, self._matrix = self._model, None
        armed = getattr(model.train_function, "__self__", None)
        if isinstance(armed, StepMeter):  # by another callback, or for a step that never came
            self._source = armed
            armed._histograms |= histograms
            if self not in armed._asking:
                armed._asking.append(self)
                armed._forget()
            return
        self._source, self._replaced_function, self._histograms = self, model.train_function, histograms
        model.train_function = self._measured_function

    def collect(self) -> list[TensorStats]:
        """The rows that the measured step read; none if it did not take place."""
        meter = self._source
        if meter._matrix is None:
            return []
        if self._own[0] is not meter._taps:
            self._own = meter._taps, taps_of(self._find_layers(self._model), self._reading.kinds)
        types = {path: type(layer).__name__ for path, layer in meter._layers.items()}
        matrix = keras.ops.convert_to_numpy(meter._matrix)
        rows = {row.tap: row for row in rows_of(meter._taps, matrix, types)}
        return [rows[tap] for tap in self._own[1] if tap in rows]

    def _measured_function(self, *arguments: Any) -> Any:
        """Stands in for the training function, once."""
        model = self._model
        model.train_function = self._replaced_function
        model.make_train_function()  # where `train_on_batch` has not yet
        return self._measured(model.train_function, *arguments)

    def _measured(self, plain: Any, *arguments: Any) -> Any:
        """Runs one step, sets `_matrix` if it could be read, and returns what the plain training function would."""
        raise NotImplementedError

    def _forget(self) -> None:
        """More is asked for than before: what was made to measure less is of no use any more."""

    def _find(self) -> None:
        """Looks up the layers and taps that any of the meters asks for."""
        layers = {path: layer for meter in self._asking for path, layer in meter._find_layers(self._model).items()}
        kinds = {kind for meter in self._asking for kind in meter._reading.kinds}
        # Weights first: they are read before the step.
        taps = sorted(taps_of(layers, kinds), key=lambda tap: tap.kind != "weight")
        if (taps, layers) != (self._taps, self._layers):
            limits = {path: output_limits(layer) for path, layer in layers.items()}
            self._limits = {path: limit for path, limit in limits.items() if limit is not None}
            self._taps = taps
            self._activated = with_activation(layers, taps)
        self._layers = layers

    @property
    def _sample_size(self) -> int | None:
        sizes = [meter._reading.sample_size for meter in self._asking]
        return None if None in sizes else max(size for size in sizes if size is not None)


def optimizers_of(model: keras.Model, kind: type = keras.optimizers.Optimizer) -> list[Any]:
    """The optimizer of `compile` and those that a model with its own `train_step` keeps as attributes."""
    candidates = [model.optimizer, *vars(model).values()]
    return list({id(x): x for x in candidates if isinstance(x, kind)}.values())
