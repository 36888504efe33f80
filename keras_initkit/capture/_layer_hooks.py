"""Reads the tensors of layers' calls, for a probe."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.capture._hooks import wrap_activation, wrap_call
from keras_initkit.capture.backends import is_signal, probe_backend
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._graph import Call
from keras_initkit.structure._layer_kinds import is_opaque, own_activation
from keras_initkit.structure._signal_outputs import signal_tensors
from keras_initkit.structure._sublayers import sublayers

Read = Callable[[Tap, np.ndarray | None], None]


def is_composite(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer joins sublayers that are read by themselves. One whose activation is a layer does not."""
    return any(part is not own_activation(layer) for part in sublayers(layer, into_loops=False))


class CaptureHooks:
    """Reads inputs, pre-activations and outputs of layers as they are called, and the gradients that come back.

    `read(tap, array)` gets `None` for symbolic tensors (of a traced function, a loop or a scan), which cannot be read.
    Of several outputs those are read that `graph`, the model's calls, has go on as signals, and the first; all,
    where there is no graph.
    """

    def __init__(self, layers: dict[str, keras.layers.Layer], read: Read, graph: Sequence[Call] = ()):
        self._layers, self._read, self._backend = layers, read, probe_backend()
        self._signals = _signal_places(graph)
        self._calls: Counter[str] = Counter()
        self._inside_opaque = False
        self._thread = threading.get_ident()  # others may run the same layers
        self._seen: dict[int, weakref.ref] = {}  # tensors that have a row

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Reads the layers' calls within this context."""
        with contextlib.ExitStack() as wrapped:
            for path, layer in self._layers.items():
                wrapped.enter_context(wrap_call(layer, self._reader(layer, path)))
            yield

    def observe(self, tensor: Any, tap: Tap) -> Any:
        """Returns `tensor`, which is read as `tap` in the forward pass, and its gradient in the backward pass."""
        result = self._backend.observed(
            tensor,
            lambda value: self._read(tap, value),
            lambda gradient: self._read(tap.gradient, gradient),
        )
        self._seen[id(result)] = weakref.ref(result)
        return result

    def _has_row(self, tensor: Any) -> bool:
        known = self._seen.get(id(tensor))
        return known is not None and known() is tensor

    def _observe_all(self, tensors: Any, tap: Tap, only_new: bool = False) -> Any:
        """Returns the structure with its float tensors observed, numbered if there are several."""
        flat = keras.tree.flatten(tensors)
        chosen = [i for i, x in enumerate(flat) if is_signal(x)]
        read = set(range(len(chosen)))
        if tap.kind == "output" and self._signals:
            read = self._signals.get((tap.layer, tap.call or 0), set())
            if not (read and isinstance(tensors, dict)):  # whose keys are in no order of importance
                read = {0, *read}
        for number, i in enumerate(chosen):
            if number in read and not (only_new and self._has_row(flat[i])):
                flat[i] = self.observe(flat[i], tap._replace(name=str(number) if len(chosen) > 1 else ""))
        return keras.tree.pack_sequence_as(tensors, flat) if chosen else tensors

    def _reader(self, layer: keras.layers.Layer, path: str) -> Callable:
        composite, opaque = is_composite(layer), is_opaque(layer)

        def call(original: Callable, *args: Any, **kwargs: Any) -> Any:
            if self._inside_opaque or threading.get_ident() != self._thread:
                return original(*args, **kwargs)
            number = self._calls[path]
            self._calls[path] += 1
            if composite:
                return self._observe_all(original(*args, **kwargs), Tap("output", path, number), only_new=True)
            # A mask of numbers is no signal.
            masks = {name: kwargs.pop(name) for name in list(kwargs) if name.endswith("mask")}
            args, kwargs = self._observe_all((args, kwargs), Tap("input", path, number))
            self._inside_opaque = opaque
            try:
                with self._activation_read(layer, Tap("pre_activation", path, number)):
                    outputs = original(*args, **kwargs, **masks)
            finally:
                self._inside_opaque = False
            return self._observe_all(outputs, Tap("output", path, number))

        return call

    def _activation_read(self, layer: keras.layers.Layer, tap: Tap) -> contextlib.AbstractContextManager[None]:
        """A context in which what a layer applies its activation to is read, unless it is the layer's input itself."""
        if is_opaque(layer) or own_activation(layer) in (None, keras.activations.linear):
            return contextlib.nullcontext()
        uses: Counter[Tap] = Counter()

        def read(original: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
            if is_signal(x) and not self._has_row(x):
                x = self.observe(x, tap._replace(name=str(uses[tap]) if uses[tap] else ""))
                uses[tap] += 1
            return original(x, *args, **kwargs)

        return wrap_activation(layer, read)


def _signal_places(graph: Sequence[Call]) -> dict[tuple[str, int], set[int]]:
    """Returns which of a call's floating-point outputs are signals, by the path of the layer and the call's number."""
    signals = signal_tensors(graph) if graph else set()
    found = {}
    for call in graph:
        floats = [tensor for tensor in call.outputs if tensor.is_float]
        found[call.path, call.index] = {place for place, tensor in enumerate(floats) if tensor in signals}
    return found
