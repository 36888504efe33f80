"""The template of a measured step of a loop that is written by hand: what all backends do in the same way."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_initkit._compat import optimized_variables
from keras_initkit.capture._hooks import replaced
from keras_initkit.capture.step._captured import CapturedTensors, Unscale
from keras_initkit.capture.step._measurement import StepMeasurement
from keras_initkit.capture.step._reduction import MeasurementSpec
from keras_initkit.report._rows import TensorStats
from keras_initkit.structure._following import rectified_layers

FindLayers = Callable[[], dict[str, keras.layers.Layer]]


class LoopMeter(StepMeasurement):
    """Measures single calls of a training step that calls layers and optimizers by itself.

    A backend's meter says in `_run_measured` what is run instead of the step.

    Args:
        models: Dictionary of models by the prefix of their layers' paths, `""` or one that ends with a slash.
        optimizers: The optimizers that the step uses.
        find_layers: Function that returns the layers to measure by their paths, prefixes included.
        spec: What is read of each layer.
    """

    _user = "watch"

    def __init__(
        self,
        models: Mapping[str, keras.Model],
        optimizers: Sequence[Any],
        find_layers: FindLayers,
        spec: MeasurementSpec,
    ):
        super().__init__()
        self._models, self._given_optimizers = models, optimizers
        self._find_layers, self._spec = find_layers, spec
        # Now, and not in a step: what a user's `call` keeps in Python then stays that of the steps.
        with self._unharmed("which layers a ReLU reads"):
            self._rectified = self._rectified_layers() if self._is_built() else None

    def run(
        self, step: Callable, args: tuple, kwargs: dict[str, Any], histograms: bool
    ) -> tuple[Any, list[TensorStats]]:
        """Calls `step`, once; returns what it returns, and the rows that were read of it."""
        rows: list[TensorStats] = []
        self._histograms = histograms
        with self._the_users():
            result, matrix = self._run_measured(*_unwrapped(step, args, kwargs))
        if matrix is not None and self._failure is None:
            with self._unharmed("what was read"):
                rows = self._read_matrix(matrix)
        self._warn()
        return result, rows

    # What a backend says.

    def _run_measured(self, step: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Runs one step; returns what it returns, and the matrix of `reduce_taps`, `None` if it could not be read."""
        raise NotImplementedError

    # What all of them do.

    def _is_built(self) -> bool:
        return all(model.built and all(layer.built for layer in model.layers) for model in self._models.values())

    def _resolve_taps(self) -> bool:
        """Looks up the layers to measure; returns whether they have changed."""
        return self._measure_layers(self._find_layers())

    @property
    def _asked(self) -> MeasurementSpec:
        return self._spec

    def _rectified_layers(self) -> Collection[str]:
        return {prefix + path for prefix, model in self._models.items() for path in rectified_layers(model)}

    def _optimizers(self) -> list[Any]:
        return list(self._given_optimizers)

    def _trained_by(self, optimizer: Any) -> list[keras.Variable]:
        return optimized_variables(optimizer) or [x for m in self._models.values() for x in m.trainable_variables]

    # A hand-written step may leave the loss as it is, under an optimizer that would scale it: `scale_loss` is watched.

    def _unscaling(self) -> dict[int, Unscale]:
        return {id(each): self._loss_unscaling(None) for each in (None, *self._optimizers())}

    def _unscale_signal(self, captured: CapturedTensors) -> Unscale:
        return captured.unscale[id(None)]

    def _scale_loss(self, optimizer: Any, scale_loss: Callable, loss: Any) -> Any:
        captured = self._captured
        with self._unharmed("the scale of the loss"):
            if captured is not None:
                unscale = self._loss_unscaling(types.SimpleNamespace(scale_loss=scale_loss))
                captured.unscale = {**captured.unscale, id(optimizer): unscale, id(None): unscale}
        return scale_loss(loss)

    @contextlib.contextmanager
    def _tapped(self) -> Iterator[None]:
        with contextlib.ExitStack() as wrapped:
            with self._unharmed("the optimizers"):
                for optimizer in self._optimizers():
                    if hasattr(optimizer, "scale_loss"):  # PyTorch's own have none
                        scaled = functools.partial(self._scale_loss, optimizer, optimizer.scale_loss)
                        wrapped.enter_context(replaced(optimizer, "scale_loss", scaled))
            with super()._tapped():
                yield


def _unwrapped(step: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, tuple, dict[str, Any]]:
    """Returns what a bound method or a `functools.partial` calls, and with which arguments."""
    while isinstance(step, types.MethodType | functools.partial):
        if isinstance(step, types.MethodType):
            step, args = step.__func__, (step.__self__, *args)
        else:
            step, args, kwargs = step.func, (*step.args, *args), {**step.keywords, **kwargs}
    return step, args, kwargs
