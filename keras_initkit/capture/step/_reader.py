"""Reads the tensors of a training step while it runs."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras

from keras_initkit.capture._hooks import replaced, wrap_activation, wrap_call, wrap_optimizer
from keras_initkit.capture.backends import is_signal
from keras_initkit.capture.step._captured import CapturedTensors, Unscale
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._weights import main_weights


class StepReader:
    """Reads what passes through layers and optimizers while a step runs.

    A backend says how a tensor and its gradient are read, and which tensors can be read; what runs the step says which
    optimizers there are, and what undoes the scaling of their losses.
    """

    _optimizer_types: tuple[type, ...] = (keras.optimizers.Optimizer,)  # of a backend

    def __init__(self) -> None:
        self._layers: dict[str, keras.layers.Layer] = {}
        self._activated: dict[str, keras.layers.Layer] = {}  # those whose pre-activations are read
        self._local = threading.local()  # replicas have threads of their own
        self._failure: tuple[str, Exception] | None = None  # what could not be measured, and why

    # What a backend says.

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

    # What runs the step says.

    def _optimizers(self) -> list[Any]:
        """Returns the optimizers whose gradients are read."""
        raise NotImplementedError

    def _trained_by(self, optimizer: Any) -> list[keras.Variable]:
        """Returns the variables that an optimizer updates where it is not told which."""
        raise NotImplementedError

    def _unscale_signal(self, captured: CapturedTensors) -> Unscale:
        """Returns what undoes the scaling of the loss on gradients that come back through layers."""
        raise NotImplementedError

    # What all of them do.

    @contextlib.contextmanager
    def _unharmed(self, what: str) -> Iterator[None]:
        """Within this context, an error of the measuring is kept for a warning, and the step goes on without it."""
        try:
            yield
        except Exception as error:
            self._failure = self._failure or (what, error)

    @property
    def _captured(self) -> CapturedTensors | None:
        """What the step that this thread traces or runs has read so far; `None` outside a step."""
        return getattr(self._local, "captured", None)

    @contextlib.contextmanager
    def _tapped(self) -> Iterator[None]:
        """Within this context, what passes through layers and optimizers is read."""
        with contextlib.ExitStack() as wrapped:
            with self._unharmed("layers and optimizers"):
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
            variables = self._trained_by(optimizer) if trainable_variables is None else list(trainable_variables)
            self._read_update(optimizer, zip((owners.get(id(each)) for each in variables), grads, strict=False))
            return original(grads, trainable_variables)

        return wrap_optimizer(optimizer, apply)

    def _read_call(self, path: str, call: Callable, *args: Any, **kwargs: Any) -> Any:
        """Reads the first output of a layer's call."""
        captured = self._captured
        losses = captured.losses[path] if captured is not None else 0
        outputs = call(*args, **kwargs)
        if captured is None:  # beside the step
            return outputs
        with self._unharmed(f"the output of {path!r}"):
            flat = keras.tree.flatten(outputs)
            output = next(filter(is_signal, flat), None)
            if output is None:
                return outputs
            # Where the layer itself goes on with its output, to a loss or a second output, the gradient has more
            # parts than come back through the outputs; summed in another order, its last bits would change.
            whole = self._has_whole_gradient(output, flat, (args, kwargs), captured.losses[path] > losses)
            read = self._read_signal(captured, output, Tap("output", path), whole)
            if read is not output:
                return keras.tree.pack_sequence_as(outputs, [read if x is output else x for x in flat])
        return outputs

    def _read_activation(self, path: str, activation: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Reads what a layer's activation is applied to."""
        captured = self._captured
        with self._unharmed(f"the pre-activation of {path!r}"):
            if captured is not None and is_signal(x):
                x = self._read_signal(captured, x, Tap("pre_activation", path), whole=True)
        return activation(x, *args, **kwargs)

    def _read_signal(self, captured: CapturedTensors, tensor: Any, tap: Tap, whole: bool) -> Any:
        if self._is_recomputing():
            return tensor
        captured.expected[tap] += 1
        gradient_tap, readable = tap.gradient, self._is_readable(tensor, captured.scope)

        def on_value(value: Any) -> None:
            if self._is_readable(value, captured.scope):
                captured.seen[tap].append(value)

        def on_gradient(gradient: Any) -> None:
            with self._unharmed(f"the {gradient_tap.kind.replace('_', ' ')} of {tap.layer!r}"):
                captured.expected[gradient_tap] += readable
                if self._is_readable(gradient, captured.scope):
                    captured.seen[gradient_tap].append(self._unscale_signal(captured)(gradient))

        return self._read(tensor, tap, on_value, on_gradient if whole else None)

    def _read_update(self, optimizer: Any, gradients: Iterable[tuple[str | None, Any]]) -> None:
        """Reads what an optimizer is given: pairs of a layer's path and the gradient of one of its weights."""
        captured = self._captured
        for path, gradient in gradients:
            if captured is None or gradient is None or path is None:
                continue
            with self._unharmed(f"the weight gradient of {path!r}"):
                tap, dense = Tap("weight_gradient", path), self._dense(gradient)
                captured.expected[tap] += 1
                if self._is_readable(dense, captured.scope):
                    captured.seen[tap].append(self._kept(captured.unscale[id(optimizer)](dense)))
