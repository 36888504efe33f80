"""The roles of weights that are no kernels: biases, gains, tables of positions, tokens, states."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from keras_initkit.structure._graph import Tensor
from keras_initkit.structure._layer_kinds import SCALINGS
from keras_initkit.structure._weight_uses import FIXED_TABLE, Use

_GAINS, _BIASES = ("gamma", "scale", "alpha"), ("bias", "beta")


def other_role(
    layer: keras.Layer, weight: keras.Variable, uses: Sequence[Use], is_product: Callable[[Tensor], bool]
) -> str:
    """Returns `"bias"`, `"gain"`, `"position embedding"`, `"token"`, `"state"` or `"other"`.

    Args:
        layer: The layer that owns the weight.
        weight: The weight.
        uses: What the trace shows of it.
        is_product: Called with a tensor; whether it is the product of a kernel. What is added to one is a bias, what
            has two axes and is added to something else a table of positions.
    """
    if layer.trainable and not weight.trainable:
        return "state"
    attributes = [name for name in (*_GAINS, *_BIASES) if getattr(layer, name, None) is weight]
    if attributes:
        return "gain" if attributes[0] in _GAINS else "bias"
    for use in uses:
        name = type(use.call.layer).__name__
        if use.reason == FIXED_TABLE:
            return "position embedding"
        if name in SCALINGS:
            return "gain"
        if name in ("Concatenate", "Stack", "Where"):
            return "token"
        if name in ("Add", "Subtract"):
            table = sum(size > 1 for size in weight.shape) > 1
            signals = [tensor for tensor in use.call.inputs if tensor.variable is not weight]
            return "position embedding" if table and not any(map(is_product, signals)) else "bias"
    if weight.name in _GAINS or weight.name in _BIASES:
        return "gain" if weight.name in _GAINS else "bias"
    return "other"
