"""The template of a measured training step: what all backends do in the same way."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_initkit.capture._hooks import replaced, wrap_activation, wrap_call, wrap_optimizer
from keras_initkit.capture.backends import is_signal
from keras_initkit.capture.step._captured import CapturedTensors, Unscale, loss_unscaling
from keras_initkit.capture.step._reduction import MeasurementSpec, Update, read_rows, reduce_taps
from keras_initkit.capture.step._targets import list_taps, select_activated, units_last
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._sampling import take_sample
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._layer_kinds import output_limits
from keras_initkit.structure._weights import main_weights

FindLayers = Callable[[keras.Model], dict[str, keras.layers.Layer]]
Train = Callable[[], Any]  # runs the step, and returns what it returns


class StepMeter:
    """Measures single training steps of `model`, for itself and for others that want the same step.

    `fit` looks up `model.train_function` at every step; for a measured one it finds a method of this object there,
    once. A backend's meter says in `_run_measured` what is run instead, how a tensor and its gradient are read, and
    which tensors can be read.
    """

    _optimizer_types: tuple[type, ...] = (keras.optimizers.Optimizer,)

    def __init__(self, model: keras.Model, find_layers: FindLayers, spec: MeasurementSpec):
        self._model, self._find_layers, self._spec = model, find_layers, spec
        self._subscribers: list[StepMeter] = [self]  # all the meters that this one measures for
        self._leader: StepMeter = self  # the meter that measures for this one
        self._histograms = False
        self._layers: dict[str, keras.layers.Layer] = {}
        self._limits: dict[str, tuple[float, float]] = {}
        self._taps: list[Tap] = []
        self._activated: dict[str, keras.layers.Layer] = {}  # those whose pre-activations are read
        self._requested: tuple[list[Tap], list[Tap]] = ([], [])  # what was measured last, and what of it is wanted here
        self._matrix: Any = None
        self._replaced_function: Any = None
        self._local = threading.local()  # replicas have threads of their own

    def arm(self, histograms: bool = False) -> None:
        """Has the next training step measured. Whatever becomes of it, the step after it is a plain one."""
        model, self._matrix = self._model, None
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

    def collect(self) -> list[TensorStats]:
        """Returns the rows that the measured step read; none if it did not take place."""
        meter = self._leader
        if meter._matrix is None:
            return []
        if self._requested[0] is not meter._taps:
            self._requested = meter._taps, list_taps(self._find_layers(self._model), self._spec.kinds)
        types = {path: type(layer).__name__ for path, layer in meter._layers.items()}
        matrix = keras.ops.convert_to_numpy(meter._matrix)
        rows = {row.tap: row for row in read_rows(meter._taps, matrix, types)}
        return [rows[tap] for tap in self._requested[1] if tap in rows]

    # What a backend says.

    def _run_measured(self, plain: Any, *arguments: Any) -> Any:
        """Runs one step, sets `_matrix` if it could be read, and returns what the training function `plain` would."""
        raise NotImplementedError

    def _read(self, tensor: Any, tap: Tap, on_value: Unscale, on_gradient: Unscale | None) -> Any:
        """Has a tensor read by `on_value`, its gradient by `on_gradient`; returns the tensor for the model to use."""
        raise NotImplementedError

    def _is_readable(self, tensor: Any, scope: Any) -> bool:
        """Returns whether the step can read a tensor: none of a loop, a branch or a recomputed block inside it."""
        return True

    def _has_whole_gradient(self, output: Any, outputs: list[Any], inputs: Any, added_loss: bool) -> bool:
        """Returns whether a layer's output has no gradient but the one that comes back through it."""
        return not added_loss

    def _dense(self, gradient: Any) -> Any:
        """Returns a weight's gradient, which may be sparse or change later in the step, for the statistics."""
        return gradient

    def _kept(self, tensor: Any) -> Any:
        """Returns a tensor that nothing in the rest of the step changes."""
        return tensor

    def _is_recomputing(self) -> bool:
        """Returns whether what is called now has been called, and read, before in this step."""
        return False

    def _before_training(self, captured: CapturedTensors) -> None:
        """Called when the weights have been captured, before the step."""

    def _finished(self, tap: Tap, tensors: list[Any]) -> list[Any]:
        """Returns what a tap saw as it is to be reduced, when the step is complete."""
        return tensors

    def _reduce(self, seen: Mapping[Tap, Sequence[Any]]) -> Any:
        """Returns the matrix of `reduce_taps`."""
        return reduce_taps(seen, self._limits, self._sample_size, self._histograms)

    def _invalidate(self) -> None:
        """Forgets what was made to measure less than is asked for now."""

    # What all of them do.

    def _measured_function(self, *arguments: Any) -> Any:
        """Stands in for the training function, once."""
        model = self._model
        model.train_function = self._replaced_function
        model.make_train_function()  # where `train_on_batch` has not yet
        return self._run_measured(model.train_function, *arguments)

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
            self._activated = select_activated(layers, taps)
        self._layers = layers

    @property
    def _sample_size(self) -> int | None:
        sizes = [meter._spec.sample_size for meter in self._subscribers]
        return None if None in sizes else max(size for size in sizes if size is not None)

    @property
    def _captured(self) -> CapturedTensors | None:
        """What the step that this thread traces or runs has read so far; `None` outside a step."""
        return getattr(self._local, "captured", None)

    def _measure_step(self, scope: Any, train: Train, value: Callable[[keras.Variable], Any]) -> tuple[Any, Any]:
        """Runs a step by `train`; returns what that returns, and the matrix of `reduce_taps`.

        Args:
            scope: Where the step's own tensors live.
            value: Function that returns a variable's value at this moment of the step.
        """
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
        self._local.captured = captured
        try:
            result = train()
        finally:
            self._local.captured = None
        for (path, weight), sample in zip(weights, samples, strict=False):
            captured.seen[Tap("weight_update", path)].append(Update(sample, value(weight)))
        captured.warn(self._taps)
        seen = {
            tap: units_last(tap, self._layers[tap.layer], self._finished(tap, captured.seen[tap])) for tap in self._taps
        }
        return result, self._reduce(seen)

    @contextlib.contextmanager
    def _tapped(self) -> Iterator[None]:
        """Within this context, what passes through layers and optimizers is read."""
        with contextlib.ExitStack() as wrapped:
            for path, layer in self._layers.items():
                wrapped.enter_context(self._tapped_layer(layer, path))
            for path, layer in self._activated.items():
                wrapped.enter_context(wrap_activation(layer, functools.partial(self._read_activation, path)))
            owners = {id(w): path for path, layer in self._layers.items() for w in main_weights(layer)}
            for optimizer in self._optimizers():
                wrapped.enter_context(self._tapped_optimizer(optimizer, owners))
            yield

    @contextlib.contextmanager
    def _tapped_layer(self, layer: keras.layers.Layer, path: str) -> Iterator[None]:
        add_loss = layer.add_loss

        def counted(loss: Any) -> None:
            if self._captured is not None:
                self._captured.losses[path] += 1
            add_loss(loss)

        with wrap_call(layer, functools.partial(self._read_call, path)), replaced(layer, "add_loss", counted):
            yield

    def _tapped_optimizer(self, optimizer: Any, owners: Mapping[int, str]) -> contextlib.AbstractContextManager[None]:
        def apply(original: Callable, grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            variables = self._model.trainable_variables if trainable_variables is None else list(trainable_variables)
            self._read_update(optimizer, zip((owners.get(id(each)) for each in variables), grads, strict=False))
            return original(grads, trainable_variables)

        return wrap_optimizer(optimizer, apply)

    def _read_call(self, path: str, call: Callable, *args: Any, **kwargs: Any) -> Any:
        """Reads the first output of a layer's call."""
        captured = self._captured
        losses = captured.losses[path] if captured is not None else 0
        outputs = call(*args, **kwargs)
        flat = keras.tree.flatten(outputs)
        output = next(filter(is_signal, flat), None) if captured is not None else None  # `None`: beside the step
        if captured is None or output is None:
            return outputs
        # Where the layer itself goes on with its output, to a loss or a second output, the gradient has more
        # parts than come back through the outputs; summed in another order, its last bits would change.
        whole = self._has_whole_gradient(output, flat, (args, kwargs), captured.losses[path] > losses)
        read = self._read_signal(captured, output, Tap("output", path), whole)
        if read is output:
            return outputs
        return keras.tree.pack_sequence_as(outputs, [read if x is output else x for x in flat])

    def _read_activation(self, path: str, activation: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Reads what a layer's activation is applied to."""
        captured = self._captured
        if captured is not None and is_signal(x):
            x = self._read_signal(captured, x, Tap("pre_activation", path), whole=True)
        return activation(x, *args, **kwargs)

    def _read_signal(self, captured: CapturedTensors, tensor: Any, tap: Tap, whole: bool) -> Any:
        if self._is_recomputing():
            return tensor
        captured.expected[tap] += 1
        gradient_tap, readable = tap.gradient, self._is_readable(tensor, captured.scope)
        unscale = captured.unscale[id(self._model.optimizer)]

        def on_value(value: Any) -> None:
            if self._is_readable(value, captured.scope):
                captured.seen[tap].append(value)

        def on_gradient(gradient: Any) -> None:
            captured.expected[gradient_tap] += readable
            if self._is_readable(gradient, captured.scope):
                captured.seen[gradient_tap].append(unscale(gradient))

        return self._read(tensor, tap, on_value, on_gradient if whole else None)

    def _read_update(self, optimizer: Any, gradients: Iterable[tuple[str | None, Any]]) -> None:
        """Reads what an optimizer is given: pairs of a layer's path and the gradient of one of its weights."""
        captured = self._captured
        for path, gradient in gradients:
            if captured is not None and gradient is not None and path is not None:
                tap, dense = Tap("weight_gradient", path), self._dense(gradient)
                captured.expected[tap] += 1
                if self._is_readable(dense, captured.scope):
                    captured.seen[tap].append(self._kept(captured.unscale[id(optimizer)](dense)))

    def _loss_unscaling(self, optimizer: Any) -> Unscale:
        """Returns what undoes the loss scaling of mixed precision on a gradient."""
        return loss_unscaling(optimizer)

    def _optimizers(self) -> list[Any]:
        """Returns the optimizer of `compile` and those that a model with its own `train_step` keeps as attributes."""
        candidates = [self._model.optimizer, *vars(self._model).values()]
        return list({id(x): x for x in candidates if isinstance(x, self._optimizer_types)}.values())
