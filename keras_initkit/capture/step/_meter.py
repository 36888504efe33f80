"""The template of a measured step of `fit`: what all backends do in the same way."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import keras

from keras_initkit.capture._optimizers import find_optimizers
from keras_initkit.capture.step._captured import CapturedTensors, Unscale
from keras_initkit.capture.step._measurement import StepMeasurement
from keras_initkit.capture.step._reduction import MeasurementSpec
from keras_initkit.capture.step._targets import list_taps
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._following import rectified_layers

FindLayers = Callable[[keras.Model], dict[str, keras.layers.Layer]]


class StepMeter(StepMeasurement):
    """Measures single training steps of `model`, for itself and for others that want the same step.

    `fit` looks up `model.train_function` at every step; for a measured one it finds a method of this object there,
    once. A backend's meter says in `_run_measured` what is run instead, and what `StepReader` asks. An error of the
    measuring costs a warning and all later measurements, never the step.
    """

    def __init__(self, model: keras.Model, find_layers: FindLayers, spec: MeasurementSpec):
        super().__init__()
        self._model, self._find_layers, self._spec = model, find_layers, spec
        self._subscribers: list[StepMeter] = [self]  # all the meters that this one measures for
        self._leader: StepMeter = self  # the meter that measures for this one
        # Now, and not between two steps: what a user's `call` keeps in Python then stays that of the steps.
        with self._unharmed("which layers a ReLU reads"):
            self._rectified = self._rectified_layers() if model.built else None
        self._requested: tuple[list[Tap], list[Tap]] = ([], [])  # what was measured last, and what of it is wanted here
        self._matrix: Any = None
        self._data: Any = None  # the batch of the measured step, where the backend has it at hand
        self._replaced_function: Any = None

    def arm(self, histograms: bool = False) -> None:
        """Has the next training step measured. Whatever becomes of it, the step after it is a plain one."""
        model, self._matrix, self._data = self._model, None, None
        if self._failure is not None:
            self._warn()
            return
        armed = getattr(model.train_function, "__self__", None)
        if isinstance(armed, StepMeter):  # by another callback, or for a step that never came
            self._leader = armed
            armed._histograms |= histograms
            if self not in armed._subscribers:
                armed._subscribers.append(self)
                armed._invalidate()
            return
        self._leader, self._replaced_function, self._histograms = self, model.train_function, histograms
        model.train_function = self._measured_function

    def disarm(self) -> None:
        """Leaves the model's training function as it was, where the step that was to be measured never came."""
        if getattr(self._model.train_function, "__self__", None) is self:
            self._model.train_function = self._replaced_function

    def collect(self) -> list[TensorStats]:
        """Returns the rows that the measured step read; none if it did not take place."""
        with self._unharmed("what was read"):
            return self._rows(self._leader)
        self._warn()
        return []

    def _rows(self, meter: StepMeter) -> list[TensorStats]:
        if meter._matrix is None:
            return []
        if self._requested[0] is not meter._taps:
            self._requested = meter._taps, list_taps(self._find_layers(self._model), self._spec.kinds)
        rows = {row.tap: row for row in meter._read_matrix(meter._matrix)}
        return [rows[tap] for tap in self._requested[1] if tap in rows]

    @property
    def batch(self) -> Any:
        """The batch that the measured step was given, as `train_step` takes it; `None` if it is not at hand."""
        return self._leader._data

    # What a backend says.

    def _run_measured(self, plain: Any, *arguments: Any) -> Any:
        """Runs one step, sets `_matrix` if it could be read, and returns what the training function `plain` would."""
        raise NotImplementedError

    def _invalidate(self) -> None:
        """Forgets what was made to measure less than is asked for now."""

    # What all of them do.

    def _measured_function(self, *arguments: Any) -> Any:
        """Stands in for the training function, once."""
        model = self._model
        model.train_function = self._replaced_function
        model.make_train_function()  # where `train_on_batch` has not yet
        with self._the_users():
            result = self._run_measured(model.train_function, *arguments)
        if self._failure is not None:
            self._matrix = None
            self._warn()
        return result

    def _resolve_taps(self) -> None:
        """Looks up the layers and taps that any of the subscribers asks for."""
        layers = {path: layer for meter in self._subscribers for path, layer in meter._find_layers(self._model).items()}
        self._measure_layers(layers)

    @property
    def _asked(self) -> MeasurementSpec:
        return MeasurementSpec.joined([meter._spec for meter in self._subscribers])

    def _rectified_layers(self) -> Collection[str]:
        return rectified_layers(self._model)

    def _optimizers(self) -> list[Any]:
        """Returns the optimizer of `compile` and those that a model with its own `train_step` keeps."""
        return find_optimizers(self._model, self._optimizer_types)

    def _trained_by(self, optimizer: Any) -> list[keras.Variable]:
        return self._model.trainable_variables

    def _unscaling(self) -> dict[int, Unscale]:
        main = self._model.optimizer  # may be `None`
        return {**super()._unscaling(), id(main): self._loss_unscaling(main)}

    def _unscale_signal(self, captured: CapturedTensors) -> Unscale:
        return captured.unscale[id(self._model.optimizer)]
