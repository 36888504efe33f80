"""What is measured of one training step, however it is run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from keras_initkit.structure._layer_kinds import output_limits
from keras_initkit.structure._weights import main_weights

Train = Callable[[], Any]  # runs the step, and returns what it returns
Value = Callable[[keras.Variable], Any]  # a variable's value at this moment of the step
_NAMES = {"LayerStatsCallback": "the callback", "watch": "it"}  # in warnings, of those who have a step measured


class Begun(NamedTuple):
    """What is read before a step: kernels by path, and samples of them in the same order."""

    captured: CapturedTensors
    weights: list[tuple[str, keras.Variable]]
    samples: list[Any]


class StepMeasurement(StepReader):
    """Measures a step that `_measure_step` is given; an error of the measuring costs one warning, never the step."""

    _user = "LayerStatsCallback"

    def __init__(self) -> None:
        super().__init__()
        self._histograms = False
        self._limits: dict[str, tuple[float, float]] = {}
        self._rectified: Collection[str] | None = None  # layers that a ReLU reads; `None` before it is known
        self._taps: list[Tap] = []
        self._has_warned = False

    @property
    def has_failed(self) -> bool:
        """Whether an error has ended the measuring."""
        return self._failure is not None

    # What runs the step says.

    def _rectified_layers(self) -> Collection[str]:
        """Returns the paths of layers that a separate `ReLU` reads."""
        raise NotImplementedError

    @property
    def _asked(self) -> MeasurementSpec:
        """What is read of each layer."""
        raise NotImplementedError

    # What a backend says.

    def _before_training(self, captured: CapturedTensors) -> None:
        """Called when the weights have been captured, before the step."""

    def _finished(self, tap: Tap, tensors: list[Any]) -> list[Any]:
        """Returns what a tap saw as it is to be reduced, when the step is complete."""
        return tensors

    def _reduce(self, seen: Mapping[Tap, Sequence[Any]]) -> Any:
        """Returns the matrix of `reduce_taps`."""
        return reduce_taps(seen, self._limits, self._asked, self._histograms, rectified=self._rectified or ())

    # What all of them do.

    def _warn(self) -> None:
        if self._failure is None or self._has_warned:
            return
        self._has_warned = True
        what, error = self._failure
        warnings.warn(
            f"{self._user}: {what} could not be measured ({describe_error(error)}). Training goes on as it would "
            f"without {_NAMES[self._user]}, and nothing more is measured.",
            stacklevel=2,
        )

    def _loss_unscaling(self, optimizer: Any) -> Unscale:
        """Returns what undoes the loss scaling of mixed precision on a gradient."""
        return loss_unscaling(optimizer)

    def _unscaling(self) -> dict[int, Unscale]:
        """Returns that of each optimizer, by its identity."""
        return {id(optimizer): self._loss_unscaling(optimizer) for optimizer in self._optimizers()}

    @contextlib.contextmanager
    def _the_users(self) -> Iterator[None]:
        """Within this context, what the step itself raises is no failure of the measuring."""
        before = self._failure
        try:
            yield
        except BaseException:
            self._failure = before
            raise

    def _measure_layers(self, layers: dict[str, keras.layers.Layer]) -> bool:
        """Sets what is measured; returns whether it has changed."""
        # Weights first: they are read before the step.
        taps = sorted(list_taps(layers, self._asked.kinds), key=lambda tap: tap.kind != "weight")
        is_new = (taps, layers) != (self._taps, self._layers)
        if is_new:
            limits = {path: output_limits(layer) for path, layer in layers.items()}
            self._limits = {path: limit for path, limit in limits.items() if limit is not None}
            self._taps = taps
            if self._rectified is None:
                self._rectified = self._rectified_layers()
            self._activated = select_activated(layers, taps)
        self._layers = layers
        return is_new

    def _read_matrix(self, matrix: Any) -> list[TensorStats]:
        types = {path: type(layer).__name__ for path, layer in self._layers.items()}
        return read_rows(self._taps, keras.ops.convert_to_numpy(matrix), types)

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

    def _kernels(self) -> list[tuple[str, keras.Variable]]:
        return [(path, weight) for path, layer in self._layers.items() for weight in main_weights(layer)]

    def _begin_step(self, scope: Any, value: Value) -> Begun:
        captured = CapturedTensors(scope, self._unscaling())
        kinds = {tap.kind for tap in self._taps}
        weights, size = self._kernels(), self._asked.sample_size
        # Read now: after the step they are others.
        before = [value(weight) for _, weight in weights] if kinds & {"weight", "weight_update"} else []
        for (path, _), tensor in zip(weights, before, strict=False):
            captured.seen[Tap("weight", path)].append(tensor)
        samples = [self._kept(take_sample(x, size)) for x in before] if "weight_update" in kinds else []
        self._before_training(captured)
        return Begun(captured, weights, samples)

    def _end_step(self, begun: Begun, value: Value) -> Any:
        captured = begun.captured
        self._read_updates(begun, value)
        captured.warn(self._taps)
        seen = {
            tap: units_last(tap, self._layers[tap.layer], self._finished(tap, captured.seen[tap])) for tap in self._taps
        }
        return self._reduce(seen)

    def _read_updates(self, begun: Begun, value: Value) -> None:
        """Reads what the step has added to the weights."""
        for (path, weight), sample in zip(begun.weights, begun.samples, strict=False):
            begun.captured.seen[Tap("weight_update", path)].append(Update(sample, value(weight)))
