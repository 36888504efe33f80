r"""The rule of depthwise convolutions, whose units have a few weights each: no average over many makes them alike.

For kernel w of a unit, read at offsets s and t inside the input, with R and B the mean products of two positions of
one example and of two examples:

    E[z_p z_q] = \sum_{s, t} w_s w_t R_{p + s, q + t},    and the same with B for two examples

The weights are known, so these sums are taken as they are, unit by unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_initkit.prediction.algebra._geometry import window_counts
from keras_initkit.prediction.algebra._laws import apply
from keras_initkit.prediction.algebra._signals import Gradient, Signal, Units
from keras_initkit.prediction.operation_rules._linear import conv, host_values, per_axis
from keras_initkit.prediction.operation_rules._rule_table import rule

_POSITIONS = 256  # of maps whose pairs of positions are computed one by one: beyond, few of them lie near a border
_UNITS = 32  # of the sample
_DRAWS = 64  # examples of each: a fixed sample, so that equal models have equal predictions


@dataclass(frozen=True)
class _Windows:
    """Which inputs the windows of a depthwise convolution read: for each axis an array (outputs, offsets, inputs)."""

    axes: list[np.ndarray]

    @classmethod
    def of(cls, layer: keras.Layer, x: Signal, field: Sequence[int]) -> _Windows:
        strides, dilation = per_axis(layer.strides, len(field)), per_axis(layer.dilation_rate, len(field))
        found = []
        for axis, (n, k, s, d) in enumerate(zip(x.size, field, strides, dilation, strict=True)):
            margin = x.margin[axis] if x.margin else (0, 0)
            _, starts = window_counts(n, k, s, d, layer.padding, margin)
            read = np.asarray(starts)[:, None] + d * np.arange(k)
            found.append((read[..., None] == np.arange(n)).astype("float64"))
        return cls(found)

    def together(self) -> np.ndarray:
        """Returns for two offsets the fraction of windows for which both lie inside the input."""
        found = np.ones((1, 1))
        for each in self.axes:
            inside = each.sum(axis=-1)
            found = np.kron(found, inside.T @ inside / len(inside))
        return found

    def matrices(self, weights: np.ndarray) -> np.ndarray:
        """Returns the map of each unit, shape (units, outputs, inputs), from weights of shape (offsets, units)."""
        found = weights.T.reshape(-1, *(each.shape[1] for each in self.axes))
        letters = "abc"[: len(self.axes)]
        kernel, out, inner = letters, letters.upper(), letters.translate(str.maketrans("abc", "xyz"))
        parts = ",".join(f"{o}{k}{i}" for o, k, i in zip(out, kernel, inner, strict=True))
        whole = np.einsum(f"u{kernel},{parts}->u{out}{inner}", found, *self.axes, optimize=True)
        outputs = math.prod(len(each) for each in self.axes)
        return whole.reshape(len(whole), outputs, -1)


@rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_conv(call, inputs):
    """Like a convolution whose kernels read one unit each."""
    layer, x = call.layer, inputs[0]
    found = conv(call, inputs)
    if getattr(layer, "activation", None) is not keras.activations.linear or None in x.size:
        return found
    field = tuple(layer.kernel.shape[: len(x.size)])
    windows = _Windows.of(layer, x, field)
    weights = host_values(layer.kernel).reshape(math.prod(field), -1)
    squares = np.einsum("tu,ts,su->u", weights, np.diag(np.diag(windows.together())), weights)
    levels = squares / max(float(squares.mean()), 1e-300)
    output = _of_units(found.output, x, layer, weights, windows, call.inputs[0].shape[0])
    share = _share_of_one(x, weights, windows, _sites(layer, windows))

    def backward(gradient: Gradient) -> list[Gradient]:
        back = [replace(part, own=gradient.own * share) for part in found.backward(gradient)]
        if gradient.unit_levels is None or gradient.unit_levels.shape != levels.shape:
            return back
        return [part.scaled(float((gradient.unit_levels * levels).mean()), balanced=part.balanced) for part in back]

    return replace(found, output=output, backward=backward)


def _share_of_one(x: Signal, weights: np.ndarray, windows: _Windows, sites: np.ndarray) -> float:
    """Returns the part of an output's variance that goes along with one input, where a gradient comes back to it.

    With correlations R between inputs, an output w x is (w R)_i x_i and what is independent of x_i. The mean is over
    all inputs i of a window, which get gradients of mean squares w_i^2.
    """
    if x.within_example is None or None in x.size:
        return 1 / max(len(weights), 1)
    common = x.mean**2 if x.between_examples is None else x.between_examples.mean(x.size)
    if math.prod(x.size) <= _POSITIONS:
        places = np.stack(np.unravel_index(np.arange(math.prod(x.size)), tuple(x.size)), axis=-1)
        maps = windows.matrices(weights[:, np.linspace(0, weights.shape[1] - 1, _UNITS).astype(int)])
    else:
        places, maps = sites, weights.T[:, None]
    products = x.within_example.at(list(np.moveaxis(places[:, None] - places[None], -1, 0))) - common
    along = maps @ (products / max(x.second_moment - common, 1e-300))
    variances = (along * maps).sum(axis=-1, keepdims=True)
    shares = np.divide(along**2, variances, out=np.zeros_like(along), where=variances > 0)
    return float((maps**2 * shares).sum() / max((maps**2).sum(), 1e-300))


def _sites(layer: Any, windows: _Windows) -> np.ndarray:
    """Returns where in the input the weights of a window read."""
    field = tuple(each.shape[1] for each in windows.axes)
    sites = np.stack(np.unravel_index(np.arange(math.prod(field)), field), axis=-1)
    return sites * np.asarray(per_axis(layer.dilation_rate, len(field)))


def _of_units(
    output: Signal, x: Signal, layer: Any, weights: np.ndarray, windows: _Windows, examples: int | None
) -> Signal:
    """Puts in what the units' own weights make of the signal."""
    if x.within_example is None or x.between_examples is None or layer.depth_multiplier != 1:
        return output
    sites = _sites(layer, windows)
    products = x.within_example.at(list(np.moveaxis(sites[:, None] - sites[None], -1, 0))) * windows.together()
    second = np.einsum("tu,ts,su->u", weights, products, weights)
    sums = (weights * np.diag(windows.together())[:, None]).sum(axis=0) ** 2
    other = x.between_examples.mean(x.size)
    common = sums * (other + (x.within_example.mean(x.size) - other) / (examples or math.inf))
    variances = np.maximum(second - common, 0.0)
    bias = 0.0 if layer.bias is None else float((host_values(layer.bias) ** 2).mean())
    square = float(second.mean()) + bias
    if variances.mean() <= 0 or output.second_moment <= 0:
        return output
    lags = output.map_autocorrelations(lambda values: values.map(lambda v: v * square / output.second_moment))
    units = Units(variances / variances.mean())
    if max(math.prod(x.size), math.prod(output.size)) <= _POSITIONS:
        chosen = np.unique(np.linspace(0, weights.shape[1] - 1, _UNITS).astype(int))
        units = replace(units, sample=_sample(x, windows.matrices(weights[:, chosen[variances[chosen] > 0]])))
    return replace(output, second_moment=square, **lags, units=units)


def _sample(x: Signal, maps: np.ndarray) -> np.ndarray | None:
    """Returns a sample of a few units: sums of few terms are not Gaussian, and share what they are sums of."""
    z, function = (x, None) if x.gaussian else (x.argument, x.function)
    if z is None or not z.gaussian or z.within_example is None or z.between_examples is None:
        return None
    places = np.stack(np.unravel_index(np.arange(math.prod(z.size)), tuple(z.size)), axis=-1)
    lags = list(np.moveaxis(places[:, None] - places[None], -1, 0))
    own, shared = z.within_example.at(lags) - z.mean**2, z.between_examples.at(lags) - z.mean**2
    random = np.random.default_rng(0)
    pattern = random.standard_normal((len(maps), 1, len(places))) @ _root(shared)
    drawn = z.mean + pattern + random.standard_normal((len(maps), _DRAWS, len(places))) @ _root(own - shared)
    given = drawn if function is None else apply(function, drawn)
    return given @ maps.transpose(0, 2, 1)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))).T
