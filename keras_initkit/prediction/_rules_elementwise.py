"""Layers that act on each element by itself: activations, noise, dropout, scaling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from keras_initkit.prediction._activation import activate
from keras_initkit.prediction._autocorrelation import Lags
from keras_initkit.prediction._rules import rule
from keras_initkit.prediction._rules_kernels import values_of
from keras_initkit.prediction._signals import Passage, Signal, UnpredictableError
from keras_initkit.theory._activations import resolve


@rule("Activation")
def activation(call, inputs):
    """y = f(x)."""
    return activate(resolve(call.layer.activation), inputs[0].settled())


@rule("ReLU", "LeakyReLU", "ELU")
def parametrized_activation(call, inputs):
    """y = f(x), f being the layer itself with its parameters."""
    return activate(call.layer.call, inputs[0].settled())


@rule("PReLU")
def prelu(call, inputs):
    """A leaky relu, while all its slopes are equal, as they are drawn."""
    slopes = values_of(call.layer.alpha)
    if np.ptp(slopes) > 0:
        raise UnpredictableError("its slopes differ")
    slope = float(slopes.flat[0])
    return activate(lambda x: (x + abs(x)) / 2 + slope * (x - abs(x)) / 2, inputs[0].settled())


@rule("Identity", "ActivityRegularization")
def identity(call, inputs):
    """y = x."""
    return Passage(inputs[0], lambda gradient: [gradient])


@rule("Rescaling")
def rescaling(call, inputs):
    """y = a x + b."""
    scale, offset = np.asarray(call.layer.scale, "float64"), np.asarray(call.layer.offset, "float64")
    if scale.ndim or offset.ndim:
        raise UnpredictableError("it scales each unit by its own number")
    return affine(inputs[0].settled(), float(scale), float(offset))


def affine(x: Signal, scale: float, offset: float) -> Passage:
    """y = a x + b."""

    def products(values: np.ndarray) -> np.ndarray:
        return scale**2 * values + 2 * scale * offset * x.mean + offset**2

    output = replace(
        x,
        mean=scale * x.mean + offset,
        second=float(products(np.asarray(x.second))),
        **x.map_lags(lambda lags: lags.map(products)),
        source=None,
        function=None,
    )
    return Passage(output, lambda gradient: [gradient.scaled(scale**2)])


def noisy(
    x: Signal, mean: float, zero: Callable[[float], float], others: Callable[[np.ndarray], np.ndarray], whole: bool
) -> Signal:
    """A signal under fresh noise.

    Args:
        x: the signal.
        mean: the new mean.
        zero: what a product of an element with itself becomes; `others`: that of elements with noise of their own.
        whole: whether all positions of a unit share their noise.
    """

    def same(lags: Lags) -> Lags:
        changed = lags.map(zero if whole else others)  # type: ignore[arg-type]
        changed.near[lags.reach] = zero(lags.zero)
        return changed

    return replace(
        x,
        mean=mean,
        second=zero(x.second),
        same=None if x.same is None else same(x.same),
        other=None if x.other is None else x.other.map(others),
        source=None,
        function=None,
    )


@rule("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout")
def dropout(call, inputs):
    """E[y^2] = E[x^2] / (1 - rate), forward and backward, as in training; other products stay.

    GaussianDropout's factors have the same mean and variance.
    """
    x, rate = inputs[0].settled(), float(call.layer.rate)
    if rate == 0:
        return identity(call, [x])
    if rate == 1:
        raise UnpredictableError("it drops everything")
    if getattr(call.layer, "noise_shape", None) is not None:
        raise UnpredictableError("its noise_shape makes elements share their noise")
    spatial = type(call.layer).__name__.startswith("Spatial")
    output = noisy(x, x.mean, lambda v: v / (1 - rate), lambda v: v, spatial)
    return Passage(replace(output, gaussian=False), lambda gradient: [gradient.scaled(1 / (1 - rate))])


@rule("AlphaDropout")
def alpha_dropout(call, inputs):
    """y = a (x or alpha) + b, alpha being what selu tends to, a and b such that N(0, 1) keeps its moments."""
    x, rate = inputs[0].settled(), float(call.layer.rate)
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

    output = noisy(x, a * mean + b, zero, others, whole=False)
    return Passage(replace(output, gaussian=x.gaussian and rate == 0), lambda g: [g.scaled(a**2 * keep)])


@rule("GaussianNoise")
def gaussian_noise(call, inputs):
    """Adds to the variance."""
    x, stddev = inputs[0].settled(), float(call.layer.stddev)
    return Passage(noisy(x, x.mean, lambda v: v + stddev**2, lambda v: v, False), lambda gradient: [gradient])
