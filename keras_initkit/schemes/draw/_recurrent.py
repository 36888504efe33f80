"""Pre-activations of a recurrent layer's gates over a whole sequence."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.capture._hooks import replaced
from keras_initkit.schemes.data_driven._forward import LayerCall, host
from keras_initkit.structure import Kernel

_CELLS = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)
_CONVOLUTIONAL = (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)


def gate_parts(layer: keras.layers.RNN, kernels: Sequence[Kernel]) -> list[list[tuple[Kernel, Any]]] | None:
    """For each gate, its parts of the input kernel and of the recurrent kernel; `None` for a cell of another's."""
    if not isinstance(layer, _CONVOLUTIONAL) and type(layer.cell) not in _CELLS:
        return None
    gates = len(kernels[0].gates)
    if not gates:
        return [[(kernel, ...) for kernel in kernels]]
    return [[(kernel, (..., gate, slice(None))) for kernel in kernels] for gate in range(gates)]


def gate_pre_activations(call: LayerCall) -> list[np.ndarray]:
    """z = x_t W + h_(t-1) U + b of each gate, over all units of all examples' steps that are not masked.

    The hidden states are the layer's own outputs. Of a GRU's candidate, what the reset gate lets through counts.
    """
    layer: Any = call.layer
    given = inspect.signature(call.run).bind(*call.args, **call.kwargs).arguments
    initial = given.get("initial_state")
    if initial is None and layer.stateful:
        initial = layer.states
    first = None if initial is None else host(keras.tree.flatten(initial)[0])
    with replaced(layer, "return_sequences", True), replaced(layer, "return_state", False):
        hidden = host(call.run(*call.args, **call.kwargs))
    x = host(given["sequences"])
    mask = next((each for each in keras.tree.flatten(given.get("mask")) if each is not None), None)
    seen = np.ones(x.shape[:2], bool) if mask is None else host(mask).astype(bool).reshape(x.shape[:2])
    if layer.go_backwards:
        x, seen = x[:, ::-1], seen[:, ::-1]
    before = _states_before(hidden, seen, first)
    gates = _conv_gates if isinstance(layer, _CONVOLUTIONAL) else _gates
    return gates(layer.cell, x[seen], before[seen])


def _states_before(hidden: np.ndarray, seen: np.ndarray, first: np.ndarray | None) -> np.ndarray:
    """The hidden state that each step starts from; a masked step leaves it as it is."""
    state = np.zeros_like(hidden[:, 0]) if first is None else first
    before = np.empty_like(hidden)
    for step in range(hidden.shape[1]):
        before[:, step] = state
        kept = seen[:, step].reshape(-1, *[1] * (state.ndim - 1))
        state = np.where(kept, hidden[:, step], state)
    return before


def _gates(cell: Any, x: np.ndarray, h: np.ndarray) -> list[np.ndarray]:
    kernel, recurrent = host(cell.kernel.value), host(cell.recurrent_kernel.value)
    from_x, from_h = x @ kernel, h @ recurrent
    if cell.use_bias:
        bias = host(cell.bias.value)
        if bias.ndim > 1:  # a GRU that resets after the product has one for each
            from_h += bias[1]
        from_x += bias[0] if bias.ndim > 1 else bias
    sections = from_x.shape[-1] // h.shape[-1]
    of_x, of_h = (np.split(each, sections, axis=-1) for each in (from_x, from_h))
    if isinstance(cell, keras.layers.GRUCell):
        reset = host(cell.recurrent_activation(keras.ops.convert_to_tensor(of_x[1] + of_h[1])))
        units = h.shape[-1]
        of_h[2] = reset * of_h[2] if cell.reset_after else (reset * h) @ recurrent[:, 2 * units :]
    return [a + b for a, b in zip(of_x, of_h, strict=True)]


def _conv_gates(cell: Any, x: np.ndarray, h: np.ndarray) -> list[np.ndarray]:
    """As the cell's own `call` does it, with all steps in one batch."""
    dtype = cell.compute_dtype
    kernel, recurrent = (keras.ops.cast(each.value, dtype) for each in (cell.kernel, cell.recurrent_kernel))
    from_x = cell.input_conv(keras.ops.convert_to_tensor(x, dtype), kernel, padding=cell.padding)
    from_h = cell.recurrent_conv(keras.ops.convert_to_tensor(h, dtype), recurrent)
    axis = 1 if cell.data_format == "channels_first" else x.ndim - 1
    z = host(from_x) + host(from_h)
    if cell.use_bias:
        z += host(cell.bias.value).reshape([-1 if place == axis else 1 for place in range(z.ndim)])
    return np.split(z, 4, axis=axis)
