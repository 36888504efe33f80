r"""Rules for layers that multiply by a random kernel: dense, convolutional, depthwise, separable, embedding.

Each output sums fan_in products with weights of mean square sigma_w^2. Over the draw of the kernel

    E[z_a z_b] = sigma_w^2 fan_in E[x_a x_b] + E[b^2],    E[g_x^2] = sigma_w^2 fan_out E[g_z^2]

with fans as means over all positions, for near a border of zeros part of the kernel reads nothing.

References:
    - Glorot and Bengio (2010), eq. 5 and 6, https://proceedings.mlr.press/v9/glorot10a.html
    - He et al. (2015), eq. 7 and 14, https://arxiv.org/abs/1502.01852
    - Xiao et al. (2018), convolutions, https://arxiv.org/abs/1806.05393
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_initkit.prediction.algebra._activation import through_activation
from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._geometry import (
    WindowOffsets,
    reweight_profile,
    transposed_offsets,
    window_offsets,
)
from keras_initkit.prediction.algebra._levels import even
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, UnpredictableError
from keras_initkit.prediction.algebra._spread import MOST, in_windows, kurtosis
from keras_initkit.prediction.operation_rules._rule_table import rule
from keras_initkit.structure._kernel import Kernel
from keras_initkit.structure._kernels import description

_ERRORS = 6.0  # standard errors by which the mean of a random kernel may be off 0
_KURTOSIS = 30.0  # normal 3, uniform 1.8; an identity or Dirac kernel of n inputs has about n


@dataclass(frozen=True)
class Scale:
    """Mean square of a layer's kernel, mean and mean square of its bias."""

    square: float
    bias_mean: float = 0.0
    bias_square: float = 0.0


def host_values(variable: keras.Variable) -> np.ndarray:
    """Returns a variable's values in float64."""
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(variable.value, "float32")), "float64")


def measure_scale(variable: keras.Variable, bias: keras.Variable | None = None) -> Scale:
    """Measures the scale of a kernel and its bias as they are; the kernel has to be a random draw of mean 0."""
    scale = measure_values(host_values(variable), variable.name)
    if bias is None:
        return scale
    offset = host_values(bias)
    return replace(scale, bias_mean=float(offset.mean()), bias_square=float(np.mean(offset**2)))


def measure_values(values: np.ndarray, name: str) -> Scale:
    """Measures the scale of the values of a kernel, which have to be a random draw of mean 0."""
    weights = values.ravel()
    squares = np.square(weights)
    square = float(squares.mean())
    if not math.isfinite(square):
        raise UnpredictableError(f"its {name} holds NaN or infinity")
    if square > 0:
        mean = float(weights.mean())
        error = math.sqrt(max(square - mean * mean, 0.0) / weights.size)
        if abs(mean) > _ERRORS * error:
            raise UnpredictableError(f"its {name} is not a random draw of mean 0: its mean is {mean:.3g}")
        if float(np.square(squares).mean()) > _KURTOSIS * square**2:
            raise UnpredictableError(f"its {name} is not a dense random draw: nearly all its weights are zero")
    return Scale(square)


def axis_size(kernel: Kernel, axes: Any) -> int:
    """Returns the product of a kernel's sizes along axes."""
    return math.prod(kernel.shape[axis] for axis in axes)


def linear(
    kernel: Kernel,
    bias: keras.Variable | None,
    x: Signal,
    offsets: WindowOffsets,
    move: Callable[[Autocorrelation], Autocorrelation],
    field: Sequence[int] = (),
) -> LayerPropagation:
    """Multiplies a signal by a kernel that has a window.

    `move` maps the input's autocorrelation to the output's positions; `field` has the sizes of the window.
    """
    scale = measure_scale(kernel.variable, bias)
    inputs, outputs = (axis_size(kernel, axes) for axes in (kernel.in_axes, kernel.out_axes))
    forward = scale.square * inputs * offsets.per_output
    back = scale.square * outputs
    sources = frozenset({id(kernel.variable)})

    def through(lags: Autocorrelation) -> Autocorrelation:
        moved = move(lags)
        near = moved.near * _overlap(offsets, moved.reach)
        return Autocorrelation(forward * near + scale.bias_square,
                               forward * offsets.apart * moved.far + scale.bias_square)  # fmt: skip

    kept = in_windows(x, field, offsets.per_output) if x.spread is not None else 1.0
    noise = (kurtosis(x) - 1) / inputs if x.spread is not None and inputs > 1 else 0.0
    lags = x.map_autocorrelations(through)
    output = Signal(
        scale.bias_mean,
        forward * x.second_moment + scale.bias_square,
        offsets.size,
        **lags,
        gaussian=True,
        sources=sources,
        levels=_levels(x, offsets, forward, scale.bias_square),
        spread=None if x.spread is None else min((x.spread + noise) * kept, MOST),
        profile=reweight_profile(
            offsets.profile or x.profile, lambda p: forward * x.second_moment * p + scale.bias_square
        ),
    )

    def weights(gradient: Gradient, examples: int) -> dict[str, float]:
        if not gradient.white or offsets.outputs is None:
            return {}
        # Each weight sums a product of input and gradient over all examples and over the positions that it meets.
        met = offsets.per_output * offsets.outputs / offsets.field
        squares = {kernel.variable.name: examples * met * x.second_moment * gradient.second_moment}
        if bias is not None and not gradient.balanced:
            squares[bias.name] = examples * offsets.outputs * gradient.second_moment
        return squares

    def backward(gradient: Gradient) -> list[Gradient]:
        reached, profile = offsets.returned(gradient.profile)
        common = gradient.common
        if common is not None:
            common *= back * reached * offsets.meeting
        own = gradient.own / math.prod(field) if inputs == 1 else gradient.sensitivity * kept / inputs
        return [gradient.scaled(
            back * reached, sources=sources, profile=profile, common=common,
            sensitivity=gradient.sensitivity * kept, own=own,
        )]  # fmt: skip

    return LayerPropagation(output, backward, weights=weights)


def _levels(x: Signal, offsets: WindowOffsets, forward: float, bias: float) -> np.ndarray | None:
    """Returns the levels of what is multiplied position by position."""
    if x.levels is None or offsets.field != 1 or offsets.size != x.size:
        return None
    return even(forward * x.second_moment * x.levels + bias)


def _overlap(offsets: WindowOffsets, reach: Sequence[int]) -> np.ndarray:
    """Returns which part of its window a position shares with another one, by the lag between them."""
    found = np.ones((1,) * len(reach))
    for axis, (shared, far) in enumerate(zip(offsets.overlaps, reach, strict=False)):
        if shared is not None:
            lags = np.abs(np.arange(-far, far + 1))
            values = shared[np.minimum(lags, len(shared) - 1)]
            found = found * values.reshape((1,) * axis + (-1,) + (1,) * (len(reach) - axis - 1))
    return found


def _spatial(layer: keras.Layer, kernel: Kernel, x: Signal, bias: keras.Variable | None, name: str) -> LayerPropagation:
    axes = len(x.size)
    field = tuple(getattr(layer, name).shape[:axes])
    dilation = per_axis(getattr(layer, "dilation_rate", 1), axes)
    strides = per_axis(layer.strides, axes)
    offsets = window_offsets(x.size, field, strides, dilation, layer.padding, x.margin, x.profile)
    return linear(kernel, bias, x, offsets, lambda lags: lags.strided(strides), field)


def per_axis(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    """Returns a number for each axis."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


def own_kernels(layer: keras.Layer) -> list[Kernel]:
    describe = description(type(layer))
    return list(describe(layer)) if describe else []


def with_activation(layer: keras.Layer, before: LayerPropagation) -> LayerPropagation:
    return through_activation(getattr(layer, "activation", None), before)


@rule("Dense")
def dense(call, inputs):
    """z = x W + b at every position."""
    (x,) = (signal.with_margin() for signal in inputs)
    kernel = own_kernels(call.layer)[0]
    return with_activation(
        call.layer, linear(kernel, call.layer.bias, x, WindowOffsets.pointwise(x.size), lambda lags: lags)
    )


@rule("Conv1D", "Conv2D", "Conv3D")
def conv(call, inputs):
    """Sums over the window of each position; offsets that read zeros beyond the border are counted exactly."""
    layer = call.layer
    return with_activation(layer, _spatial(layer, own_kernels(layer)[0], inputs[0], layer.bias, "kernel"))


@rule("SeparableConv1D", "SeparableConv2D")
def separable_conv(call, inputs):
    """Applies a depthwise convolution, then a dense layer at every position."""
    layer = call.layer
    depthwise, pointwise = own_kernels(layer)
    first = _spatial(layer, depthwise, inputs[0], None, "depthwise_kernel")
    second = linear(pointwise, layer.bias, first.output, WindowOffsets.pointwise(first.output.size), lambda lags: lags)
    assert second.weights is not None

    def weights(gradient: Gradient, examples: int) -> dict[str, float]:
        inner = first.weights(second.backward(gradient)[0], examples) if first.weights else {}
        return {**inner, **second.weights(gradient, examples)}  # type: ignore[misc]

    both = replace(second, backward=lambda g: first.backward(second.backward(g)[0]), weights=weights)
    return with_activation(layer, both)


@rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def conv_transpose(call, inputs):
    """Each input adds the whole kernel to the output, s positions apart: an output gets 1/s of it on average."""
    layer, (x,) = call.layer, (signal.with_margin() for signal in inputs)
    kernel = own_kernels(layer)[0]
    axes = len(x.size)
    field = tuple(layer.kernel.shape[:axes])
    strides, dilation = per_axis(layer.strides, axes), per_axis(layer.dilation_rate, axes)
    offsets = transposed_offsets(x.size, call.outputs[0].shape[1:-1], field, strides, dilation)
    x = replace(x, profile=())
    return with_activation(layer, linear(kernel, layer.bias, x, offsets, lambda lags: lags.dilated(strides)))
