"""Rules for elementwise layers: activations, noise, dropout, scaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_initkit.prediction.algebra._activation import activate
from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._layout import standardize
from keras_initkit.prediction.algebra._notes import Mixing
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, UnpredictableError
from keras_initkit.prediction.operation_rules._linear import host_values
from keras_initkit.prediction.operation_rules._rule_table import rule
from keras_initkit.theory._activations import resolve

_SPATIAL = (keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D)


@rule("Activation", anywhere=True, parted=True)
def activation(call, inputs):
    """y = f(x)."""
    return activate(resolve(call.layer.activation), needed(inputs[0]).with_margin())


@rule("ReLU", "LeakyReLU", "ELU", anywhere=True, parted=True)
def parametrized_activation(call, inputs):
    """y = f(x), where f is the layer itself with its parameters."""
    return activate(call.layer.call, needed(inputs[0]).with_margin())


@rule("Normalization", anywhere=True)
def fixed_normalization(call, inputs):
    """Subtracts fixed means and divides by fixed deviations."""
    layer, shape = call.layer, call.outputs[0].shape
    if getattr(layer, "mean", None) is None:
        raise UnpredictableError("it is not adapted to data")
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(each), "float64") for each in (layer.mean, layer.variance))
    scale = 1 / np.maximum(np.sqrt(variance), 1e-7)
    if getattr(layer, "invert", False):
        raise UnpredictableError("it is inverted")
    x = needed(inputs[0]).with_margin()
    return scaled_by_unit(x, shape, scale, -mean * scale)


def scaled_by_unit(x: Signal, shape: Sequence[int | None], scale: np.ndarray, offset: np.ndarray) -> LayerPropagation:
    """y = a_u x + b_u, with a factor and an offset for each unit."""
    if np.ptp(scale) == 0 and np.ptp(offset) == 0:
        return affine(x, float(scale.flat[0]), float(offset.flat[0]))
    squares, means = float((scale**2).mean()), float(scale.mean())
    mixed, added, second = float((scale * offset).mean()), float(offset.mean()), float((offset**2).mean())

    def products(values: np.ndarray) -> np.ndarray:
        return squares * values + 2 * mixed * x.mean + second

    output = replace(
        x,
        mean=means * x.mean + added,
        second_moment=float(products(np.asarray(x.second_moment))),
        **x.map_autocorrelations(lambda lags: lags.map(products)),
        gaussian=False,
        identically_distributed=False,
        argument=None,
        function=None,
        note=None,
    )
    return LayerPropagation(output, lambda gradient: [gradient.scaled(squares)])


@rule("PReLU")
def prelu(call, inputs):
    """Treats PReLU as a leaky relu while all its slopes are equal, as they are at initialization."""
    slopes = host_values(call.layer.alpha)
    if np.ptp(slopes) > 0:
        raise UnpredictableError("its slopes differ")
    slope = float(slopes.flat[0])
    return activate(lambda x: (x + abs(x)) / 2 + slope * (x - abs(x)) / 2, inputs[0].with_margin())


@rule("Identity", "ActivityRegularization", operations="Cast Copy StopGradient ConvertToTensor", anywhere=True)
def identity(call, inputs):
    """y = x."""
    return LayerPropagation(inputs[0], lambda gradient: [gradient])


@rule("Rescaling")
def rescaling(call, inputs):
    """y = a x + b."""
    scale, offset = np.asarray(call.layer.scale, "float64"), np.asarray(call.layer.offset, "float64")
    return scaled_by_unit(inputs[0].with_margin(), call.outputs[0].shape, *np.broadcast_arrays(scale, offset))


def needed(x: Signal) -> Signal:
    """Returns a signal that is known; raises `UnpredictableError` otherwise."""
    if not x.known:
        raise UnpredictableError("its input is not predicted")
    return x


def affine(x: Signal, scale: float, offset: float) -> LayerPropagation:
    """y = a x + b."""
    x = replace(needed(x), note=None)

    def products(values: np.ndarray) -> np.ndarray:
        return scale**2 * values + 2 * scale * offset * x.mean + offset**2

    output = replace(
        x,
        mean=scale * x.mean + offset,
        second_moment=float(products(np.asarray(x.second_moment))),
        **x.map_autocorrelations(lambda lags: lags.map(products)),
        across_units=None if x.across_units is None else float(products(np.asarray(x.across_units))),
        **_of_argument(x, scale, offset),
    )
    return LayerPropagation(output, lambda gradient: [gradient.scaled(scale**2)])


def _of_argument(x: Signal, scale: float, offset: float) -> dict[str, Any]:
    """Returns a x + b as a function of the Gaussian signal that x is a function of."""
    if x.argument is None and not x.gaussian:
        return {"argument": None, "function": None}
    inner = x.function or (lambda z: z)
    return {"argument": x.argument or x, "function": lambda z: scale * inner(z) + offset}


def add_noise(
    x: Signal, mean: float, zero: Callable[[float], float], others: Callable[[np.ndarray], np.ndarray], whole: bool
) -> Signal:
    """Adds or multiplies fresh noise to a signal.

    Args:
        x: The signal.
        mean: Float. The new mean.
        zero: Maps the mean product of an element with itself to its new value.
        others: Maps the mean product of two elements with independent noise to its new value.
        whole: Boolean. Whether all positions of a unit share their noise.
    """

    def same(lags: Autocorrelation) -> Autocorrelation:
        changed = lags.map(zero if whole else others)  # type: ignore[arg-type]
        near = np.array(changed.near)  # `others` may have returned the very array
        near[lags.reach] = zero(lags.zero)
        return Autocorrelation(near, changed.far)

    return replace(
        x,
        mean=mean,
        second_moment=zero(x.second_moment),
        within_example=None if x.within_example is None else same(x.within_example),
        between_examples=None if x.between_examples is None else x.between_examples.map(others),
        law=None,
        argument=None,
        function=None,
    )


@rule("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout", anywhere=True)
def dropout(call, inputs):
    """E[y^2] = E[x^2] / (1 - rate), forward and backward, as in training; products of different elements stay.

    GaussianDropout's factors have the same mean and variance.
    """
    rate = float(call.layer.rate)
    if rate == 0:
        return identity(call, inputs)
    x = needed(standardize(inputs[0], call.inputs[0].shape) if inputs[0].values else inputs[0]).with_margin()
    if rate == 1:
        raise UnpredictableError("it drops everything")
    shape = getattr(call.layer, "noise_shape", None)
    whole = shape is not None and len(shape) > 1 and all(size == 1 for size in tuple(shape)[1:])  # one for an example
    if shape is not None and not whole:
        raise UnpredictableError("its noise_shape makes elements share their noise")
    spatial = isinstance(call.layer, _SPATIAL) or whole
    output = add_noise(x, x.mean, lambda v: v / (1 - rate), lambda v: v, spatial)
    kept = 1 - rate
    note = x.note.dropped(kept) if isinstance(x.note, Mixing) else None

    examples = call.inputs[0].shape[0]
    # Of a few examples that are dropped as a whole, more or fewer are left than expected: by a binomial deviation.
    chance = math.sqrt(rate / (kept * examples)) if whole and examples else 0.0

    def backward(gradient: Gradient) -> list[Gradient]:
        common = gradient.common
        if spatial and common is not None:
            common /= kept
        return [gradient.scaled(1 / kept, common=common, along=gradient.along, doubt=gradient.doubt + chance)]

    across = x.across_units
    if whole:
        across = x.product_of_units / kept
    return LayerPropagation(replace(output, gaussian=False, note=note, across_units=across), backward)


@rule("AlphaDropout")
def alpha_dropout(call, inputs):
    """y = a (x or alpha) + b, where alpha is the limit of selu, and a and b keep the moments of N(0, 1)."""
    x, rate = inputs[0].with_margin(), float(call.layer.rate)
    if getattr(call.layer, "noise_shape", None) is not None:
        raise UnpredictableError("its noise_shape makes elements share their noise")
    keep, alpha = 1 - rate, -1.6732632423543772 * 1.0507009873554805
    a = (keep * (1 + rate * alpha**2)) ** -0.5 if rate < 1 else math.nan
    if not math.isfinite(a):
        raise UnpredictableError("it drops everything")
    b = -a * alpha * rate
    mean = keep * x.mean + rate * alpha  # before a and b

    def zero(second: float) -> float:
        return a**2 * (keep * second + rate * alpha**2) + 2 * a * b * mean + b**2

    def others(product: np.ndarray) -> np.ndarray:
        before = keep**2 * product + 2 * keep * rate * alpha * x.mean + (rate * alpha) ** 2
        return a**2 * before + 2 * a * b * mean + b**2

    output = add_noise(x, a * mean + b, zero, others, whole=False)
    return LayerPropagation(replace(output, gaussian=x.gaussian and rate == 0), lambda g: [g.scaled(a**2 * keep)])


@rule("GaussianNoise")
def gaussian_noise(call, inputs):
    """Adds the noise's variance."""
    x, stddev = inputs[0].with_margin(), float(call.layer.stddev)
    return LayerPropagation(
        add_noise(x, x.mean, lambda v: v + stddev**2, lambda v: v, False), lambda gradient: [gradient]
    )
