"""Runs a model on symbolic tensors, and notes every call that it makes, down to single operations."""

from __future__ import annotations

import collections
import contextlib
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras

from keras_initkit._compat import (
    VARIABLE,
    auto_names_kept,
    describe_error,
    graph_nodes_off,
    symbolic_call,
)
from keras_initkit._random_state import random_state_kept
from keras_initkit._threads import replaced_in_this_thread
from keras_initkit.structure._graph import Call, Tensor
from keras_initkit.structure._layer_kinds import is_elementary
from keras_initkit.structure._layer_paths import named_layers
from keras_initkit.structure._stand_ins import nothing_built, weights_replaced
from keras_initkit.structure._sublayers import walk_layers

_LOCK = threading.RLock()  # the classes below are patched for one thread at a time


class Recorder:
    """Notes the calls that a model makes while it runs on `keras.KerasTensor`s of fixed shapes.

    Layers that are not elementary are opened: their `call` runs, with their weights replaced by symbolic tensors, so
    that the graph shows what is done with each. One whose `call` cannot run like that is noted as a single call, with
    the reason. Nothing of the model changes: no graph node is added to it, nothing is built, and its variables are in
    a `keras.StatelessScope`.

    Args:
        model: A built Keras model.
        free_batch: Integer. Size of a first axis that stands for any batch; such an axis is noted as `None`.
    """

    def __init__(self, model: keras.Model, free_batch: int | None):
        self.calls: list[Call] = []
        self._losses: list[Tensor] = []  # what layers add by `add_loss`
        self._model, self._free_batch = model, free_batch
        self._paths = {id(layer): path for path, layer in named_layers(model).items()}
        self._layers = [layer for _, layer in walk_layers(model)]
        operations = [each for layer in self._layers for each in getattr(layer, "operations", [])]
        self._kept = {id(each): each.name for each in operations if not isinstance(each, keras.Layer)}
        self._symbols: dict[int, tuple[Any, Tensor]] = {}  # by identity; the symbol itself, that it stays alive
        self._counts: collections.Counter[str] = collections.Counter()
        # Path and operations of each composite that is running; the first is what stands before the model's own call.
        self._stack: list[tuple[str, collections.Counter]] = [("", collections.Counter())]
        self._paused = False
        self._roots: list[keras.Layer] = [model]  # what may not be noted as a single call

    def run(self, *arguments: Any) -> None:
        """Calls the model, or a layer, on symbolic tensors; `calls` then ends with the model's own call.

        Raises:
            Exception: Of whatever kind the model's own `call` raises on symbolic tensors.
        """
        for symbol in keras.tree.flatten(arguments):
            self._tensor(symbol)
        with self._recording():
            self._model(*arguments)

    def run_parts(self, parts: Mapping[keras.Layer, Iterable[Any]]) -> None:
        """Calls layers that the model holds, each by itself; `calls` then ends with one call for all of them.

        Args:
            parts: Dictionary from each layer to guesses of its symbolic inputs, of which the first that fits is taken.
        """
        self._roots = list(parts)
        self._stack.append(("", collections.Counter()))
        inputs: list[Any] = []
        outputs: list[Any] = []
        with self._recording():
            for part, guesses in parts.items():
                for symbols in guesses:
                    try:
                        made = part(symbols)
                    except Exception:  # whatever a user's `call` raises on symbolic tensors
                        continue
                    inputs += keras.tree.flatten(symbols)
                    outputs += keras.tree.flatten(made)
                    break
        read, written = (tuple(map(self._tensor, filter(_is_symbol, each))) for each in (inputs, outputs))
        path = self._paths.get(id(self._model), self._model.name)
        self.calls.append(Call(path, self._model, 0, read, written, opened=True, losses=tuple(self._losses)))

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        with _LOCK, contextlib.ExitStack() as stack:
            stack.enter_context(random_state_kept())
            stack.enter_context(keras.StatelessScope())
            stack.enter_context(auto_names_kept())
            stack.enter_context(graph_nodes_off())
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # the real call gives them
            stack.enter_context(self._observed())
            stack.enter_context(nothing_built(self._layers))
            yield

    @contextlib.contextmanager
    def _observed(self) -> Iterator[None]:
        """Sends the symbolic calls of this thread through `_called`."""

        def observed(original: Callable) -> Callable:
            def symbolic_call(operation: Any, *args: Any, **kwargs: Any) -> Any:
                if self._paused:
                    return original(operation, *args, **kwargs)
                return self._called(operation, lambda: original(operation, *args, **kwargs), args, kwargs)

            return symbolic_call

        def noted(original: Callable) -> Callable:
            def add_loss(layer: Any, loss: Any) -> None:
                self._losses.extend(self._tensor(each) for each in keras.tree.flatten(loss) if _is_symbol(each))

            return add_loss

        with contextlib.ExitStack() as stack:
            for owner in (keras.Operation, keras.Layer):
                if "symbolic_call" in vars(owner):  # in earlier Keras only operations have it
                    stack.enter_context(replaced_in_this_thread(owner, "symbolic_call", observed))
            stack.enter_context(replaced_in_this_thread(keras.Layer, "add_loss", noted))
            yield

    def _called(self, operation: Any, infer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if not isinstance(operation, keras.Layer):
            outputs = self._inferred(infer)
            if type(operation).__name__ == "ConvertToTensor" and _is_symbol(args[0]) and args[0].dtype == outputs.dtype:
                self._symbols[id(outputs)] = outputs, self._tensor(args[0])
                return outputs
            self._note(operation, self._operation_path(operation), args, kwargs, outputs)
            return outputs
        path = self._paths.get(id(operation)) or self._inside(operation.name)
        reason = ""
        for symbolic_weights in () if is_elementary(operation) else (True, False):
            try:
                return self._opened(operation, path, args, kwargs, symbolic_weights)
            except Exception as error:  # whatever a user's code raises on symbolic tensors
                reason = describe_error(error)
                if not symbolic_weights and any(operation is root for root in self._roots):
                    raise
        outputs = self._inferred(infer)
        if isinstance(operation, keras.layers.EinsumDense) and None in outputs.shape:  # as its `output_shape` may say
            kernel = keras.KerasTensor(operation.kernel.shape)
            outputs = self._inferred(lambda: keras.ops.einsum(operation.equation, args[0], kernel))
        self._note(operation, path, args, kwargs, outputs, reason=reason)
        return outputs

    def _inferred(self, infer: Any) -> Any:
        """Returns the outputs by Keras' own inference of shapes, whose inner calls are not noted."""
        self._paused = True
        try:
            return infer()
        finally:
            self._paused = False

    def _opened(
        self, layer: keras.Layer, path: str, args: tuple, kwargs: dict[str, Any], symbolic_weights: bool
    ) -> Any:
        mark, losses, counts = len(self.calls), len(self._losses), self._counts.copy()
        self._stack.append((path, collections.Counter()))
        try:
            with weights_replaced(layer, self._tensor) if symbolic_weights else contextlib.nullcontext():
                outputs = symbolic_call(layer)(*args, **kwargs)
            outputs = keras.tree.map_structure(self._as_symbol, outputs)
        except Exception:
            del self.calls[mark:], self._losses[losses:]
            self._counts = counts
            raise
        finally:
            self._stack.pop()
        added = tuple(self._losses) if layer is self._model else ()
        self._note(layer, path, args, kwargs, outputs, opened=True, losses=added)
        return outputs

    def _as_symbol(self, value: Any) -> Any:
        """Returns a symbolic tensor for a concrete one, such as a table of sines, which Keras refuses as an output."""
        if isinstance(value, keras.KerasTensor) or not (isinstance(value, VARIABLE) or keras.ops.is_tensor(value)):
            return value
        variable = value if isinstance(value, VARIABLE) else None
        symbol = keras.KerasTensor(value.shape, keras.backend.standardize_dtype(value.dtype))
        self._tensor(symbol, variable, constant=value)
        return symbol

    def _tensor(self, symbol: Any, variable: keras.Variable | None = None, constant: Any = None) -> Tensor:
        if isinstance(symbol, VARIABLE):  # one that belongs to another layer
            variable = symbol
        if id(symbol) not in self._symbols:
            shape = tuple(symbol.shape)
            if shape and shape[0] == self._free_batch and variable is None and constant is None:
                shape = (None, *shape[1:])
            dtype = keras.backend.standardize_dtype(symbol.dtype)
            self._symbols[id(symbol)] = symbol, Tensor(len(self._symbols) + 1, shape, dtype, variable, constant)
        return self._symbols[id(symbol)][1]

    def _note(
        self, operation: Any, path: str, args: tuple, kwargs: dict[str, Any], outputs: Any, **options: Any
    ) -> None:
        given: Any = (args, kwargs)
        if isinstance(operation, keras.Layer):
            given = args, {name: value for name, value in kwargs.items() if not re.fullmatch("(.*_)?mask", name)}
        read, written = (tuple(map(self._tensor, filter(_is_symbol, keras.tree.flatten(e)))) for e in (given, outputs))
        noted = keras.tree.map_structure(lambda each: self._tensor(each) if _is_symbol(each) else each, (args, kwargs))
        index = self._counts[path]
        self._counts[path] += 1
        self.calls.append(Call(path, operation, index, read, written, noted[0], noted[1], **options))

    def _inside(self, name: str) -> str:
        """Returns the path of a part of the composite that is running."""
        outer = self._stack[-1][0] if len(self._stack) > 2 else ""
        return f"{outer}/{name}" if outer else name

    def _operation_path(self, operation: Any) -> str:
        """Returns the name that a graph gave to an operation; those that `call` makes anew are numbered in each run."""
        if id(operation) in self._kept:
            return self._inside(self._kept[id(operation)])
        name = re.sub("(?<!^)(?=[A-Z])", "_", type(operation).__name__).lower()
        made = self._stack[-1][1]
        made[name] += 1
        return self._inside(name if made[name] == 1 else f"{name}_{made[name] - 1}")


def _is_symbol(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor | VARIABLE)
