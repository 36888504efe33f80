"""Pre-activations of a recurrent layer's gates over a whole sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_initkit.signal.state import replaced

CELLS = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)


def gate_pre_activations(layer: keras.layers.RNN, call: Callable, args: tuple, kwargs: dict) -> list[np.ndarray]:
    """z = x_t W + h_(t-1) U + b of each gate, over all examples, steps and units.

    The hidden states are the layer's own outputs. A GRU's candidate is taken before its reset gate acts.

    Args:
        layer: a recurrent layer with a cell of Keras' own.
        call: the layer's `call`; it is called once.
        args, kwargs: its arguments.
    """
    with replaced(layer, "return_sequences", True), replaced(layer, "return_state", False):
        hidden = call(*args, **kwargs)
    x, h = (_numpy(each) for each in (args[0] if args else kwargs["sequences"], hidden))
    if layer.go_backwards:
        x = x[:, ::-1]
    cell = layer.cell
    before = np.concatenate([np.zeros_like(h[:, :1]), h[:, :-1]], axis=1)
    z = x @ _numpy(cell.kernel.value) + before @ _numpy(cell.recurrent_kernel.value)
    if cell.use_bias:
        bias = _numpy(cell.bias.value)
        z += bias.sum(axis=0) if bias.ndim > 1 else bias
    units = h.shape[-1]
    return [z[..., start : start + units] for start in range(0, z.shape[-1], units)]


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype("float64")
