"""The template of a measured training step: what all backends do in the same way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from keras_initkit._compat import describe_error
from keras_initkit.capture.step._captured import CapturedTensors, Unscale, loss_unscaling
from keras_initkit.capture.step._reader import StepReader
from keras_initkit.capture.step._reduction import MeasurementSpec, Update, read_rows, reduce_taps
from keras_initkit.capture.step._targets import list_taps, select_activated, units_last
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._sampling import take_sample
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._following import rectified_layers
from keras_initkit.structure._layer_kinds import output_limits
from keras_initkit.structure._weights import main_weights

FindLayers = Callable[[keras.Model], dict[str, keras.layers.Layer]]
Train = Callable[[], Any]  # runs the step, and returns what it returns
Value = Callable[[keras.Variable], Any]  # a variable's value at this moment of the step


class _Begun(NamedTuple):
    """What is read before a step: kernels by path, and samples of them in the same order."""

    captured: CapturedTensors
    weights: list[tuple[str, keras.Variable]]
    samples: list[Any]


class StepMeter(StepReader):
    """Measures single training steps of `model`, for itself and for others that want the same step.

    `fit` looks up `model.train_function` at every step; for a measured one it finds a method of this object there,
    once. A backend's meter says in `_run_measured` what is run instead, and what `StepReader` asks. An error of the
    measuring costs a warning and all later measurements, never the step.
    """

    def __init__(self, model: keras.Model, find_layers: FindLayers, spec: MeasurementSpec):
        super().__init__(model)
        self._find_layers, self._spec = find_layers, spec
        self._subscribers: list[StepMeter] = [self]  # all the meters that this one measures for
        self._leader: StepMeter = self  # the meter that measures for this one
        self._histograms = False
        self._limits: dict[str, tuple[float, float]] = {}
        # Now, and not between two steps: what a user's `call` keeps in Python then stays that of the steps.
        self._rectified: Collection[str] | None = None
        with self._unharmed("which layers a ReLU reads"):
            self._rectified = rectified_layers(model) if model.built else None
        self._taps: list[Tap] = []
        self._requested: tuple[list[Tap], list[Tap]] = ([], [])  # what was measured last, and what of it is wanted here
        self._matrix: Any = None
        self._data: Any = None  # the batch of the measured step, where the backend has it at hand
        self._replaced_function: Any = None
        self._has_warned = False

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

    @property
    def has_failed(self) -> bool:
        """Whether an error has ended the measuring."""
        return self._failure is not None

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
        types = {path: type(layer).__name__ for path, layer in meter._layers.items()}
        matrix = keras.ops.convert_to_numpy(meter._matrix)
        rows = {row.tap: row for row in read_rows(meter._taps, matrix, types)}
        return [rows[tap] for tap in self._requested[1] if tap in rows]

    @property
    def batch(self) -> Any:
        """The batch that the measured step was given, as `train_step` takes it; `None` if it is not at hand."""
        return self._leader._data

    # What a backend says.

    def _run_measured(self, plain: Any, *arguments: Any) -> Any:
        """Runs one step, sets `_matrix` if it could be read, and returns what the training function `plain` would."""
        raise NotImplementedError

    def _before_training(self, captured: CapturedTensors) -> None:
        """Called when the weights have been captured, before the step."""

    def _finished(self, tap: Tap, tensors: list[Any]) -> list[Any]:
        """Returns what a tap saw as it is to be reduced, when the step is complete."""
        return tensors

    def _reduce(self, seen: Mapping[Tap, Sequence[Any]]) -> Any:
        """Returns the matrix of `reduce_taps`."""
        return reduce_taps(seen, self._limits, self._sample_size, self._histograms, rectified=self._rectified or ())

    def _invalidate(self) -> None:
        """Forgets what was made to measure less than is asked for now."""

    # What all of them do.

    def _measured_function(self, *arguments: Any) -> Any:
        """Stands in for the training function, once."""
        model = self._model
        model.train_function = self._replaced_function
        model.make_train_function()  # where `train_on_batch` has not yet
        result = self._run_measured(model.train_function, *arguments)
        if self._failure is not None:
            self._matrix = None
            self._warn()
        return result

    def _warn(self) -> None:
        if self._failure is None or self._has_warned:
            return
        self._has_warned = True
        what, error = self._failure
        warnings.warn(
            f"LayerStatsCallback: {what} could not be measured ({describe_error(error)}). Training goes on as it would "
            "without the callback, and nothing more is measured.",
            stacklevel=2,
        )

    def _resolve_taps(self) -> None:
        """Looks up the layers and taps that any of the subscribers asks for."""
        layers = {path: layer for meter in self._subscribers for path, layer in meter._find_layers(self._model).items()}
        kinds = {kind for meter in self._subscribers for kind in meter._spec.kinds}
        # Weights first: they are read before the step.
        taps = sorted(list_taps(layers, kinds), key=lambda tap: tap.kind != "weight")
        if (taps, layers) != (self._taps, self._layers):
            limits = {path: output_limits(layer) for path, layer in layers.items()}
            self._limits = {path: limit for path, limit in limits.items() if limit is not None}
            self._taps = taps
            if self._rectified is None:
                self._rectified = rectified_layers(self._model)
            self._activated = select_activated(layers, taps)
        self._layers = layers

    @property
    def _sample_size(self) -> int | None:
        sizes = [meter._spec.sample_size for meter in self._subscribers]
        return None if None in sizes else max(size for size in sizes if size is not None)

    def _measure_step(self, scope: Any, train: Train, value: Value) -> tuple[Any, Any]:
        """Runs a step by `train`; returns what that returns, and the matrix of `reduce_taps`.

        Args:
            scope: Where the step's own tensors live.
            value: Function that returns a variable's value at this moment of the step.
        """
        begun = None
        with self._unharmed("the weights"):
            begun = self._begin_step(scope, value)
        self._local.captured = begun and begun.captured
        try:
            result = train()
        finally:
            self._local.captured = None
        if begun is not None and self._failure is None:
            with self._unharmed("what the step computes"):
                return result, self._end_step(begun, value)
        return result, keras.ops.zeros((0,))

    def _begin_step(self, scope: Any, value: Value) -> _Begun:
        optimizers = (self._model.optimizer, *self._optimizers())
        captured = CapturedTensors(scope, {id(x): self._loss_unscaling(x) for x in optimizers})
        kinds = {tap.kind for tap in self._taps}
        weights = [(path, weight) for path, layer in self._layers.items() for weight in main_weights(layer)]
        # Read now: after the step they are others.
        before = [value(weight) for _, weight in weights] if kinds & {"weight", "weight_update"} else []
        for (path, _), tensor in zip(weights, before, strict=False):
            captured.seen[Tap("weight", path)].append(tensor)
        samples = [self._kept(take_sample(x, self._sample_size)) for x in before] if "weight_update" in kinds else []
        self._before_training(captured)
        return _Begun(captured, weights, samples)

    def _end_step(self, begun: _Begun, value: Value) -> Any:
        captured = begun.captured
        for (path, weight), sample in zip(begun.weights, begun.samples, strict=False):
            captured.seen[Tap("weight_update", path)].append(Update(sample, value(weight)))
        captured.warn(self._taps)
        seen = {
            tap: units_last(tap, self._layers[tap.layer], self._finished(tap, captured.seen[tap])) for tap in self._taps
        }
        return self._reduce(seen)

    def _loss_unscaling(self, optimizer: Any) -> Unscale:
        """Returns what undoes the loss scaling of mixed precision on a gradient."""
        return loss_unscaling(optimizer)
