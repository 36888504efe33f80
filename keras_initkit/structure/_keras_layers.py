"""The kernels of Keras' built-in layers.

Composites (attention, wrappers, RNNs, models) hold no kernels directly; their sublayers do.
"""

from __future__ import annotations

import keras
from keras import layers

from keras_initkit.structure._kernels import Kernel, register_kernels

LSTM_GATES = ("input", "forget", "cell", "output")
GRU_GATES = ("update", "reset", "candidate")


def _variable(layer: keras.Layer, name: str) -> keras.Variable:
    """Returns the variable `layer.<name>`, or the one behind it where that is a sum (LoRA adds its update)."""
    value = getattr(layer, name)
    if isinstance(value, keras.Variable):
        return value
    return next(variable for variable in layer.weights if variable.name == name)


@register_kernels(layers.Dense)
def _dense(layer):
    return [Kernel(_variable(layer, "kernel"), in_axes=0, out_axes=1)]


@register_kernels(layers.EinsumDense)
def _einsum_dense(layer):
    inputs, rest = layer.equation.replace(" ", "").split(",")
    kernel, outputs = rest.split("->")

    def axes(in_inputs: bool, in_outputs: bool) -> tuple[int, ...]:
        """Returns the kernel's axes whose letter is, or is not, in the inputs and in the outputs."""
        pairs = [(letter in inputs, letter in outputs) for letter in kernel]
        return tuple(axis for axis, pair in enumerate(pairs) if pair == (in_inputs, in_outputs))

    # A letter of the kernel alone is summed over whatever the inputs are, like a receptive field.
    return [Kernel(_variable(layer, "kernel"), axes(True, False), axes(False, True), axes(True, True))]


@register_kernels(layers.Embedding)
def _embedding(layer):
    # An output reads one row: a sum over a one-hot input, of which a single term is not zero.
    rows = Kernel(_variable(layer, "embeddings"), in_axes=(), out_axes=1, batch_axes=0, role="embedding")
    reverse = getattr(layer, "reverse_embeddings", None)  # ReversibleEmbedding(tie_weights=False)
    return [rows] if reverse is None else [rows, Kernel(reverse, in_axes=0, out_axes=1)]


def _conv(layer):
    variable = _variable(layer, "kernel")
    *field, inputs, filters = variable.shape
    strides = tuple(layer.strides)
    if layer.groups == 1:
        return [Kernel(variable, role="conv", strides=strides)]
    shape = (*field, inputs, layer.groups, filters // layer.groups)
    return [Kernel(variable, in_axes=-3, out_axes=-1, batch_axes=-2, role="conv", shape=shape, strides=strides)]


def _conv_transpose(layer):
    variable = _variable(layer, "kernel")  # (*field, outputs, inputs)
    return [Kernel(variable, in_axes=-1, out_axes=-2, role="conv_transpose", strides=tuple(layer.strides))]


def _depthwise(variable, strides):  # (*field, channels, multiplier)
    return Kernel(variable, in_axes=(), out_axes=-1, batch_axes=-2, role="depthwise", strides=tuple(strides))


def _depthwise_conv(layer):
    return [_depthwise(_variable(layer, "kernel"), layer.strides)]


def _separable_conv(layer):
    return [_depthwise(layer.depthwise_kernel, layer.strides), Kernel(layer.pointwise_kernel, role="conv")]


def _gated(variable, gates, **options):
    """Returns a kernel whose last axis holds the gates one after another, each with all its units."""
    *rest, packed = variable.shape
    shape = (*rest, len(gates), packed // len(gates))
    return Kernel(variable, in_axes=-3, out_axes=-1, batch_axes=-2, shape=shape, gates=gates, **options)


@register_kernels(layers.SimpleRNNCell)
def _simple_rnn_cell(layer):
    return [Kernel(layer.kernel), Kernel(layer.recurrent_kernel, role="recurrent")]


@register_kernels(layers.LSTMCell)
def _lstm_cell(layer):
    return [_gated(layer.kernel, LSTM_GATES), _gated(layer.recurrent_kernel, LSTM_GATES, role="recurrent")]


@register_kernels(layers.GRUCell)
def _gru_cell(layer):
    return [_gated(layer.kernel, GRU_GATES), _gated(layer.recurrent_kernel, GRU_GATES, role="recurrent")]


def _conv_lstm(layer):  # described by the layer, since Keras exports no ConvLSTM cells
    kernel = _gated(layer.cell.kernel, LSTM_GATES, role="conv", strides=tuple(layer.strides))
    return [kernel, _gated(layer.cell.recurrent_kernel, LSTM_GATES, role="recurrent")]  # that is never strided


@register_kernels(layers.AdditiveAttention)
def _additive_attention(layer):
    # score = sum_d scale_d tanh(query_d + key_d): a Dense layer with one output.
    return [] if layer.scale is None else [Kernel(layer.scale, in_axes=0, out_axes=())]


def _no_kernel(layer):
    """Weights that multiply elementwise, are measured or are fixed: nothing is summed."""
    return []


for _rank in (1, 2, 3):
    register_kernels(getattr(layers, f"Conv{_rank}D"), _conv)
    register_kernels(getattr(layers, f"Conv{_rank}DTranspose"), _conv_transpose)
    register_kernels(getattr(layers, f"ConvLSTM{_rank}D"), _conv_lstm)
for _rank in (1, 2):
    register_kernels(getattr(layers, f"DepthwiseConv{_rank}D"), _depthwise_conv)
    register_kernels(getattr(layers, f"SeparableConv{_rank}D"), _separable_conv)
for _name in (
    "Attention",  # two scalars; AdditiveAttention, a subclass, is described above
    "BatchNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "Normalization",
    "PReLU",
    "RMSNormalization",
    "SpectralNormalization",  # a singular vector; the kernel is the wrapped layer's
    "STFTSpectrogram",  # a fixed Fourier basis
):
    if hasattr(layers, _name):  # RMSNormalization and STFTSpectrogram came after Keras 3.3
        register_kernels(getattr(layers, _name), _no_kernel)
