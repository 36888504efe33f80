"""Tensors of a graph that no signal reaches: weights as they are reshaped, tables of sines, masks, positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.prediction.algebra._signals import UnpredictableError
from keras_initkit.structure._graph import Call, Tensor

_EXAMPLES = 16


class KnownValues:
    """Computes, when asked, the tensors that depend on weights, constants and integer inputs alone.

    Args:
        graph: The calls of a model.
        integers: The integers that inputs hold, by the tensor's number; all ones where there are none, the value of a
            mask that lets everything through.
    """

    def __init__(self, graph: Sequence[Call], integers: Mapping[int, np.ndarray | None]):
        self._made: dict[int, tuple[Call, int]] = {}
        self._inputs = {tensor.number: tensor for tensor in graph[-1].inputs if not tensor.is_float}
        self._integers = integers
        every = [tensor for call in graph for tensor in (*call.inputs, *call.outputs)]
        self._free = {tensor.number for tensor in every if tensor.shape and tensor.shape[0] is None}
        self._cache: dict[tuple[int, int], Any] = {}
        self._known: dict[int, bool] = {}  # whether it depends on an input
        for number in self._inputs:
            self._known[number] = True
        for call in graph:
            for tensor in call.inputs:
                if tensor.variable is not None:
                    self._known.setdefault(tensor.number, False)
            if call.opened or not all(tensor.number in self._known for tensor in call.inputs):
                continue
            if isinstance(call.layer, keras.Layer) or _looks_up(call, self._known):
                continue
            for place, tensor in enumerate(call.outputs):
                self._made[tensor.number] = call, place
                self._known[tensor.number] = any(self._known[each.number] for each in call.inputs)

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.number in self._known

    def varies(self, tensor: Tensor) -> bool:
        """Whether it depends on an input."""
        return self._known.get(tensor.number, False)

    def has_data(self, tensor: Tensor) -> bool:
        """Whether it comes from an input whose values were given."""
        if tensor.number in self._inputs:
            return self._integers.get(tensor.number) is not None
        made = self._made.get(tensor.number)
        return made is not None and any(self.has_data(each) for each in made[0].inputs)

    def sources(self, tensor: Tensor) -> frozenset:
        """Returns the weights that it depends on."""
        if tensor.variable is not None:
            return frozenset({id(tensor.variable)})
        made = self._made.get(tensor.number)
        return frozenset() if made is None else frozenset().union(*map(self.sources, made[0].inputs))

    def of(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        """Returns a function that computes a tensor; its first axis has several examples where it depends on inputs."""
        return lambda: self._values(tensor)

    def _values(self, tensor: Tensor) -> np.ndarray:
        try:
            parts = [np.asarray(to_numpy(self._computed(tensor, first))) for first in self._starts(tensor)]
        except Exception as error:  # whatever an operation raises
            raise UnpredictableError("a mask or table that it reads could not be computed") from error
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _starts(self, tensor: Tensor) -> Sequence[int]:
        """Returns the first example of each pair that is computed; the graph is traced for two examples."""
        if not self.varies(tensor) or not self.has_data(tensor) or tensor.number not in self._free:
            return [0]
        sizes = [len(values) for values in self._integers.values() if values is not None]
        return range(0, max(min(min(sizes), _EXAMPLES) - 1, 1), 2)

    def _computed(self, tensor: Tensor, first: int) -> Any:
        key = tensor.number, first
        if key not in self._cache:
            if tensor.variable is not None:
                self._cache[key] = keras.ops.cast(tensor.variable.value, tensor.dtype)
            elif tensor.number in self._inputs:
                self._cache[key] = self._input(tensor, first)
            else:
                call, _ = self._made[tensor.number]
                given = {each.number: self._computed(each, first) for each in call.inputs}
                args, kwargs = keras.tree.map_structure(
                    lambda each: given[each.number] if isinstance(each, Tensor) else each,
                    (call.args, dict(call.kwargs)),
                )
                outputs = keras.tree.flatten(call.layer(*args, **kwargs))
                for output, value in zip(call.outputs, outputs, strict=True):
                    self._cache[output.number, first] = value
        return self._cache[key]

    def _input(self, tensor: Tensor, first: int) -> Any:
        values = self._integers.get(tensor.number)
        shape = tuple(2 if size is None else size for size in tensor.shape)
        if values is None:
            return keras.ops.ones(shape, tensor.dtype)
        pair = np.resize(values[first : first + shape[0]], (shape[0], *values.shape[1:]))
        return keras.ops.cast(keras.ops.convert_to_tensor(pair), tensor.dtype)


def _looks_up(call: Call, known: Mapping[int, bool]) -> bool:
    """Whether a call reads rows of a table of weights at places that depend on an input."""
    return (
        type(call.layer).__name__ == "Take"
        and len(call.inputs) == 2
        and call.inputs[0].is_float
        and known[call.inputs[1].number]
        and not known[call.inputs[0].number]
    )
