r"""Layers that multiply by a random kernel: dense, convolutional, transposed, depthwise, separable, embedding.

Each output sums fan_in products with weights of mean square sigma_w^2, so that over the draw of the kernel

    E[z_a z_b] = sigma_w^2 fan_in E[x_a x_b] + E[b^2],    E[g_x^2] = sigma_w^2 fan_out E[g_z^2]

with fans as means over all positions: at a border of zeros some of the kernel's taps read nothing.

Source: Glorot and Bengio 2010, eq. 5, 6; He et al. 2015, eq. 7, 14; Xiao et al. 2018 (convolutions).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_initkit.prediction._activation import through_activation
from keras_initkit.prediction._autocorrelation import Lags
from keras_initkit.prediction._geometry import Taps, transposed_taps, window_taps
from keras_initkit.prediction._rules import rule
from keras_initkit.prediction._signals import Gradient, Passage, Signal, UnpredictableError, reweighted
from keras_initkit.structure._kernels import Kernel, description

_ERRORS = 6.0  # standard errors by which the mean of a random kernel may be off 0
_KURTOSIS = 30.0  # normal 3, uniform 1.8; an identity or Dirac kernel of n inputs has about n


@dataclass(frozen=True)
class Scale:
    """What the weights of a layer add up to: mean square of its kernel, mean and mean square of its bias."""

    square: float
    bias_mean: float = 0.0
    bias_square: float = 0.0


def values_of(variable: keras.Variable) -> np.ndarray:
    """A variable's values in float64."""
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(variable.value, "float32")), "float64")


def scale_of(variable: keras.Variable, bias: keras.Variable | None = None) -> Scale:
    """The scale of a kernel as it stands.

    Raises:
        UnpredictableError: if it is no random draw of mean 0.
    """
    weights = values_of(variable).ravel()
    square = float(np.mean(weights**2))
    if not math.isfinite(square):
        raise UnpredictableError(f"its {variable.name} holds NaN or infinity")
    if square > 0:
        mean, error = float(weights.mean()), float(weights.std()) / math.sqrt(weights.size)
        if abs(mean) > _ERRORS * error:
            raise UnpredictableError(f"its {variable.name} is no random draw of mean 0: its mean is {mean:.3g}")
        if float(np.mean(weights**4)) > _KURTOSIS * square**2:
            raise UnpredictableError(f"its {variable.name} is no dense random draw: nearly all its weights are zero")
    offset = np.zeros(1) if bias is None else values_of(bias)
    return Scale(square, float(offset.mean()), float(np.mean(offset**2)))


def sizes(kernel: Kernel, axes: Any) -> int:
    """The product of a kernel's sizes along axes."""
    return math.prod(kernel.shape[axis] for axis in axes)


def linear(kernel: Kernel, bias: keras.Variable | None, x: Signal, taps: Taps, move: Callable[[Lags], Lags]) -> Passage:
    """A kernel's product with a signal. `move` takes correlations at the input's lags to the output's."""
    scale = scale_of(kernel.variable, bias)
    inputs, outputs = (sizes(kernel, axes) for axes in (kernel.in_axes, kernel.out_axes))
    forward = scale.square * inputs * taps.per_output
    back = scale.square * outputs * taps.per_input
    roots = frozenset({id(kernel.variable)})

    def through(lags: Lags) -> Lags:
        moved = move(lags)
        return Lags(forward * moved.near + scale.bias_square, forward * taps.apart * moved.far + scale.bias_square)

    lags = x.map_lags(through)
    output = Signal(
        scale.bias_mean,
        forward * x.second + scale.bias_square,
        taps.size,
        **lags,
        gaussian=True,
        roots=roots,
        profile=reweighted(taps.profile or x.profile, lambda p: forward * x.second * p + scale.bias_square),
    )

    def weights(gradient: Gradient, examples: int) -> dict[str, float]:
        if not gradient.white or taps.outputs is None:
            return {}
        # Each weight sums a product of input and gradient over all examples and over the positions that it meets.
        met = taps.per_output * taps.outputs / taps.field
        squares = {kernel.variable.name: examples * met * x.second * gradient.second}
        if bias is not None and not gradient.balanced:
            squares[bias.name] = examples * taps.outputs * gradient.second
        return squares

    return Passage(output, lambda g: [g.scaled(back, roots=roots)], weights=weights)


def _spatial(layer: keras.Layer, kernel: Kernel, x: Signal, bias: keras.Variable | None, name: str) -> Passage:
    axes = len(x.size)
    field = tuple(getattr(layer, name).shape[:axes])
    dilation = each(getattr(layer, "dilation_rate", 1), axes)
    strides = each(layer.strides, axes)
    taps = window_taps(x.size, field, strides, dilation, layer.padding, x.margin, x.profile)
    return linear(kernel, bias, x, taps, lambda lags: lags.strided(strides))


def each(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    """A number for each axis."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _own(layer: keras.Layer) -> list[Kernel]:
    describe = description(type(layer))
    return list(describe(layer)) if describe else []


def _with_activation(layer: keras.Layer, before: Passage) -> Passage:
    return through_activation(getattr(layer, "activation", None), before)


@rule("Dense")
def dense(call, inputs):
    """z = x W + b at every position."""
    (x,) = (signal.settled() for signal in inputs)
    kernel = _own(call.layer)[0]
    return _with_activation(call.layer, linear(kernel, call.layer.bias, x, Taps.pointwise(x.size), lambda lags: lags))


@rule("EinsumDense")
def einsum_dense(call, inputs):
    """As Dense, over whichever axes the equation sums."""
    (x,) = (signal.settled() for signal in inputs)
    kernel = _own(call.layer)[0]
    same_positions = len(kernel.in_axes) == 1 and len(kernel.out_axes) == 1 and not kernel.batch_axes
    positions = x.size if same_positions else call.outputs[0].shape[1:-1]
    if not same_positions:  # units and positions change places: lags between the new positions are not known
        x = replace(x, same=None, other=None, profile=())
    outer = (*positions, call.outputs[0].shape[-1])
    total = None if kernel.batch_axes or None in outer else math.prod(outer) / sizes(kernel, kernel.out_axes)
    taps = replace(Taps.pointwise(x.size), size=positions, outputs=total)
    return _with_activation(call.layer, linear(kernel, call.layer.bias, x, taps, lambda lags: lags))


@rule("Conv1D", "Conv2D", "Conv3D")
def conv(call, inputs):
    """A sum over the window of each position; the taps that read zeros beyond the border are counted exactly."""
    layer = call.layer
    return _with_activation(layer, _spatial(layer, _own(layer)[0], inputs[0], layer.bias, "kernel"))


@rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_conv(call, inputs):
    """As a convolution whose kernels read one channel each."""
    return conv(call, inputs)


@rule("SeparableConv1D", "SeparableConv2D")
def separable_conv(call, inputs):
    """A depthwise convolution, then a dense layer at every position."""
    layer = call.layer
    depthwise, pointwise = _own(layer)
    first = _spatial(layer, depthwise, inputs[0], None, "depthwise_kernel")
    second = linear(pointwise, layer.bias, first.output, Taps.pointwise(first.output.size), lambda lags: lags)
    assert second.weights is not None

    def weights(gradient: Gradient, examples: int) -> dict[str, float]:
        inner = first.weights(second.backward(gradient)[0], examples) if first.weights else {}
        return {**inner, **second.weights(gradient, examples)}  # type: ignore[misc]

    both = replace(second, backward=lambda g: first.backward(second.backward(g)[0]), weights=weights)
    return _with_activation(layer, both)


@rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def conv_transpose(call, inputs):
    """Each input adds the whole kernel to the output, s positions apart: an output meets 1 of s taps, on average."""
    layer, (x,) = call.layer, (signal.settled() for signal in inputs)
    kernel = _own(layer)[0]
    axes = len(x.size)
    field = tuple(layer.kernel.shape[:axes])
    strides, dilation = each(layer.strides, axes), each(layer.dilation_rate, axes)
    taps = transposed_taps(x.size, call.outputs[0].shape[1:-1], field, strides, dilation)
    x = replace(x, profile=())
    return _with_activation(layer, linear(kernel, layer.bias, x, taps, lambda lags: lags.spread(strides)))


@rule("Embedding")
def embedding(call, inputs):
    """Rows of random numbers. Two examples, or positions, are taken to read different rows."""
    layer = call.layer
    scale = scale_of(layer.embeddings)
    size = call.outputs[0].shape[1:-1]
    other = Lags.white(0.0, 0.0, len(size))
    same = Lags.white(scale.square, 0.0, len(size))
    output = Signal(0.0, scale.square, size, same, other, roots=frozenset({id(layer.embeddings)}))
    return Passage(output, lambda gradient: [])
