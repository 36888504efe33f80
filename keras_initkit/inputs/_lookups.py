"""Which elements of a model's inputs are looked up in tables, and how many rows these have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.structure._calls import free_batch
from keras_initkit.structure._graph import Call, Tensor
from keras_initkit.structure._layer_kinds import is_embedding, is_opaque
from keras_initkit.structure._sublayers import walk_layers

# Operations and layers that move elements and change none.
_MOVING = re.compile(
    "BroadcastTo|Concatenate|Copy|ExpandDims|Flatten|Flip|GetItem|Identity|Moveaxis|Permute|Ravel|Repeat|RepeatVector|"
    "Reshape|Roll|Slice|Split|Squeeze|Stack|StopGradient|Swapaxes|Tile|Transpose|Unstack"
)
_KEEPING = frozenset(("Cast", "ConvertToTensor"))


def rows_by_element(graph: Sequence[Call], certain: bool = True) -> dict[int, np.ndarray]:
    """Returns the rows of the smallest table in which each element of an input is looked up, 0 without any.

    Numbers in place of the elements go through the calls that only move elements (reshapes, slices, casts), to see
    which of them arrive at a table. Only inputs that do are in the dictionary, by the number of the tensor. Each array
    has the shape of one example, with size 1 along an axis on which it is constant.

    Args:
        graph: List of calls, as `structure.calls` returns them.
        certain: Boolean. Whether to leave out the tables of layers that the trace could not open, which may look up
            something else than what they are given.
    """
    tables = [table for call in graph for table in _tables(call, certain)]
    if not tables:
        return {}
    inputs = list({tensor.number: tensor for tensor in graph[-1].inputs}.values())
    ends = np.cumsum([1, *(math.prod(tensor.shape[1:]) for tensor in inputs)])  # 0 numbers what is of no input
    numbers: dict[int, np.ndarray] = {}
    for tensor, start, end in zip(inputs, ends[:-1], ends[1:], strict=True):
        own = np.arange(start, end, dtype="int32").reshape(1, *tensor.shape[1:])
        numbers[tensor.number] = np.broadcast_to(own, _traced_shape(tensor))
    for call in graph:
        if not call.opened:
            _move(call, numbers)
    rows = np.full(ends[-1], np.iinfo("int64").max)
    for indices, size in tables:
        read = np.unique(numbers.get(indices.number, 0))
        rows[read] = np.minimum(rows[read], size)
    rows[rows == np.iinfo("int64").max] = 0
    found = {}
    for tensor, start, end in zip(inputs, ends[:-1], ends[1:], strict=True):
        if rows[start:end].any():
            found[tensor.number] = _compressed(rows[start:end].reshape(tensor.shape[1:]))
    return found


def _tables(call: Call, certain: bool) -> Iterator[tuple[Tensor, int]]:
    """Yields what a call looks up, with the number of rows of the table."""
    layer = call.layer
    if isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer
    if not isinstance(layer, keras.Layer):
        if type(layer).__name__ in ("Take", "TakeAlongAxis") and len(call.args) == 2 and layer.axis is not None:
            table, indices = call.args
            if isinstance(indices, Tensor):
                yield indices, int(_traced_shape(table)[layer.axis])
    elif is_embedding(layer):
        if not call.opened:
            yield call.inputs[0], int(layer.input_dim)
    elif not certain and (call.reason or is_opaque(layer)):
        for _, part in walk_layers(layer):
            if is_embedding(part):
                yield from ((tensor, int(part.input_dim)) for tensor in call.inputs if not tensor.is_float)


def _traced_shape(tensor: Any) -> tuple[int, ...]:
    """Returns the shape that a tensor had while the model was traced."""
    return tuple(free_batch() if size is None else size for size in tensor.shape)


def _move(call: Call, numbers: dict[int, np.ndarray]) -> None:
    """Has a call move the numbers of elements, if that is all that it does."""
    kind = type(call.layer).__name__
    if not any(tensor.number in numbers for tensor in call.inputs):
        return
    if kind in _KEEPING:
        numbers[call.outputs[0].number] = numbers[call.inputs[0].number]
    if not _MOVING.fullmatch(kind):
        return

    def numbered(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return keras.ops.convert_to_tensor(numbers.get(value.number, np.zeros(_traced_shape(value), "int32")))

    args, kwargs = keras.tree.map_structure(numbered, (call.args, dict(call.kwargs)))
    try:
        moved = keras.tree.flatten(call.layer.call(*args, **kwargs))
    except Exception:  # of any kind: it was made for other tensors than these
        return
    for tensor, each in zip(call.outputs, moved, strict=False):
        numbers[tensor.number] = keras.ops.convert_to_numpy(each)


def _compressed(values: np.ndarray) -> np.ndarray:
    """Returns the array with one element along each axis on which it is constant."""
    for axis in range(values.ndim):
        first = values.take([0], axis)
        if (values == first).all():
            values = first
    return values
