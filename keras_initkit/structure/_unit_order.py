"""Where the units of a tensor come to lie after it is reshaped, split and transposed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.structure._calls import free_batch
from keras_initkit.structure._graph import Call, Tensor
from keras_initkit.structure._layer_kinds import moves, shifts_or_scales

_MOVING_LAYERS = (keras.layers.Reshape, keras.layers.Permute, keras.layers.Flatten)


def unit_order(found: Sequence[Call], source: Tensor, axes: Sequence[int], target: Tensor) -> np.ndarray | None:
    """Returns for each element of a tensor the number of the unit that it comes from.

    The operations between that only move elements are run on the numbers; a scale or a dropout leaves them.

    Args:
        found: The calls of a model.
        source: Tensor.
        axes: Integers. Its axes that hold units, which are numbered from 0 in the order of these axes.
        target: Tensor.

    Returns:
        Integer array of the shape of `target`; `None` where other operations come between.
    """
    shape = [free_batch() if size is None else size for size in source.shape]
    axes = [axis % len(shape) for axis in axes]
    numbers = np.arange(math.prod(shape[axis] for axis in axes), dtype="float32")
    laid = numbers.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes))
    laid = laid.reshape([size if axis in axes else 1 for axis, size in enumerate(shape)])
    known: dict[Tensor, Any] = {source: keras.ops.convert_to_tensor(np.array(np.broadcast_to(laid, shape)))}
    for call in found:
        if target in known:
            break
        read = [tensor for tensor in call.inputs if tensor in known]
        if call.opened or len(read) != 1:
            continue
        try:
            made = _made(call, read[0], known)
        except Exception:  # of any kind: an operation ran on numbers that it was not made for
            continue
        known.update(made)
    if target not in known:
        return None
    return keras.ops.convert_to_numpy(known[target]).round().astype("int64")


def _made(call: Call, tensor: Tensor, known: dict[Tensor, Any]) -> dict[Tensor, Any]:
    numbers = known[tensor]
    if moves(call.layer) or isinstance(call.layer, _MOVING_LAYERS):
        arguments: Any = (list(call.args), {} if isinstance(call.layer, keras.Layer) else dict(call.kwargs))
        given, options = keras.tree.map_structure(
            lambda each: known[each] if isinstance(each, Tensor) else each, arguments
        )
        outputs = keras.tree.flatten(call.layer(*given, **options))
        return dict(zip(call.outputs, outputs, strict=True))
    same = len(call.outputs) == 1 and len(call.outputs[0].shape) == len(numbers.shape)
    scales = shifts_or_scales(call.layer) or isinstance(call.layer, keras.layers.Dropout)
    return {call.outputs[0]: numbers} if same and scales else {}


def varying(order: np.ndarray | None, axes: Sequence[int]) -> np.ndarray | None:
    """Returns the numbers along some axes, in this order; `None` where they vary along others, or there are none."""
    if order is None:
        return None
    axes = [axis % order.ndim for axis in axes]
    others = [axis for axis in range(order.ndim) if axis not in axes]
    moved = order.transpose([*others, *axes]).reshape(-1, *(order.shape[axis] for axis in axes))
    return moved[0] if (moved == moved[:1]).all() else None
