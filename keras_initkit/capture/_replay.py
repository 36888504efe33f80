"""Runs the calls of a trace again on numbers, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit._compat import describe_error
from keras_initkit.structure._calls import free_batch
from keras_initkit.structure._graph import Call, Tensor

Values = Mapping[Tensor, Any]
After = Callable[[Call, Values], None]


class MissingInputError(Exception):
    """Raised where an input of a call has not been computed."""


class Replay:
    """Computes the tensors of a trace for as many examples as a trace of free batches is made for.

    Layers behave as in inference. Each tensor is let go after its last use.

    Args:
        graph: The calls of a model, as `calls` returns them.
        kept: Dictionary of tensors that must be there still when a call is done, by the call's identity.
    """

    def __init__(self, graph: Sequence[Call], kept: Mapping[int, Iterable[Tensor]] | None = None):
        self._calls = [call for call in graph if not call.opened]
        self._inputs, self._outputs = graph[-1].inputs, graph[-1].outputs
        last: dict[Tensor, int] = {}
        for place, call in enumerate(self._calls):
            read = (each for each in keras.tree.flatten((call.args, dict(call.kwargs))) if isinstance(each, Tensor))
            for tensor in (*call.inputs, *read, *call.outputs, *(kept or {}).get(id(call), ())):
                last[tensor] = place
        self._done: dict[int, list[Tensor]] = {}
        for tensor, place in last.items():
            if tensor not in self._outputs:
                self._done.setdefault(place, []).append(tensor)
        free = any(tensor.shape and tensor.shape[0] is None for tensor in self._inputs)
        self.examples = free_batch() if free else None  # of each run; `None` where it is the number of the data
        self.failures: dict[str, str] = {}  # reasons why calls could not be computed, by path

    def run(self, arrays: Sequence[Any], after: After | None = None) -> list[np.ndarray | None]:
        """Returns the model's outputs; `None` for what could not be computed.

        Args:
            arrays: Arrays of the inputs, in the order of the model's.
            after: Function that is called after each call, with the tensors that are there.
        """
        values: dict[Tensor, Any] = {
            tensor: keras.ops.cast(keras.ops.convert_to_tensor(array), tensor.dtype)
            for tensor, array in zip(self._inputs, arrays, strict=True)
        }
        for place, call in enumerate(self._calls):
            try:
                compute(call, values)
            except MissingInputError:  # a consequence of a failure before
                continue
            except Exception as error:  # whatever an operation raises: its outputs are not known then
                self.failures[call.path] = describe_error(error)
                continue
            finally:
                if after is not None:
                    after(call, values)
                for tensor in self._done.get(place, ()):
                    values.pop(tensor, None)
        return [None if each not in values else keras.ops.convert_to_numpy(values[each]) for each in self._outputs]

    def run_apart(self, several: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray | None]]:
        """Returns the model's outputs for several sets of examples, which go through it together where they can."""
        size, count = self.examples, len(several[0][0])
        if size is None or size < count * len(several):
            return [self.run(arrays) for arrays in several]
        outputs = self.run(
            [np.resize(np.concatenate(each), (size, *each[0].shape[1:])) for each in zip(*several, strict=True)]
        )
        starts = range(0, count * len(several), count)
        return [
            [None if each is None or len(each) != size else each[start : start + count] for each in outputs]
            for start in starts
        ]


def compute(call: Call, values: dict[Tensor, Any]) -> None:
    """Runs one call and adds its outputs to `values`.

    Raises:
        MissingInputError: If one of its inputs is not known.
        Exception: Whatever the operation raises.
    """

    def value(each: Any) -> Any:
        if not isinstance(each, Tensor):
            return each
        if each in values:
            return values[each]
        if each.variable is not None:
            return keras.ops.cast(each.variable.value, each.dtype)
        if each.value is not None:
            return keras.ops.cast(each.value, each.dtype)
        raise MissingInputError(each.number)

    args, kwargs = keras.tree.map_structure(value, (call.args, dict(call.kwargs)))
    made = [each for each in keras.tree.flatten(call.layer(*args, **kwargs)) if keras.ops.is_tensor(each)]
    values.update(zip(call.outputs, made, strict=True))
