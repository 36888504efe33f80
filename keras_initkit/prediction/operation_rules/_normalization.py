r"""Rules for normalization: y = gamma (x - mu) / sqrt(v + epsilon) + beta, with mu and v over some of the axes.

    backward: g_x = gamma / sqrt(v + epsilon) (g - <g> - y <g y>), with means <> that are small over many elements

The variance v follows from the correlation of the elements that share a mean mu: v = E[x^2] - E[mu^2].

References:
    - Ioffe and Szegedy (2015), Batch Normalization, https://arxiv.org/abs/1502.03167
    - Ba et al. (2016), Layer Normalization, https://arxiv.org/abs/1607.06450
    - Yang et al. (2019), A Mean Field Theory of Batch Normalization, https://arxiv.org/abs/1902.08129
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._laws import lags_of
from keras_initkit.prediction.algebra._levels import inverse_levels
from keras_initkit.prediction.algebra._parts import of_parts
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, Units, UnpredictableError
from keras_initkit.prediction.operation_rules._normalize import Affine, normalize
from keras_initkit.prediction.operation_rules._rule_table import rule


def _last_axis(layer, x: Signal) -> bool:
    axis = layer.axis if isinstance(layer.axis, int) else tuple(layer.axis)
    rank = len(x.size) + 2
    return axis in (-1, rank - 1, (-1,), (rank - 1,), [-1])


@rule("LayerNormalization", resumes=True)
def layer_normalization(call, inputs):
    """Averages over the units of one example at one position: many units, hence E[mu^2] = E[x]^2."""
    layer, x = call.layer, inputs[0].with_margin()
    if not _last_axis(layer, x):
        raise UnpredictableError("it normalizes over axes other than the last")
    if getattr(layer, "rms_scaling", False):
        raise UnpredictableError("its rms_scaling is on")
    units = call.inputs[0].shape[-1]
    square = x.product_of_units
    more = _inverse_of_profile(x, square, layer.epsilon)
    inverse = inverse_levels(x, square, layer.epsilon)
    # Each position is divided by its own.
    x = replace(x, profile=(), levels=None, across_units=None, spread=None)
    found = normalize(layer, x, square, square, 1 - more * _left(units, 2))
    return replace(found, backward=lambda g: [part.weighed(1.0, inverse) for part in found.backward(g)])


def _left(units: int, removed: int) -> float:
    r"""Returns what is left of a gradient's mean square, times the variance: $(n - r) / (n - r - 1)$.

    Of n units a normalization takes out r directions of the gradient, and one over the variance of n Gaussian elements
    has mean $n / (n - r - 1)$, for it is a chi square of n - r + 1 degrees of freedom.
    """
    return (units - removed) / max(units - removed - 1, 1)


def _inverse_of_profile(x: Signal, square: float, epsilon: float) -> float:
    """Returns the mean of one over the variance at a position, over one over the mean variance."""
    more = 1.0
    for values in x.profile:
        if values is not None and x.second_moment > square:
            variances = np.maximum(values * x.second_moment - square, 0.0) + epsilon
            more *= float((1 / np.maximum(variances, 1e-300)).mean()) * (x.second_moment - square + epsilon)
    return more


@rule("RMSNormalization", resumes=True)
def rms_normalization(call, inputs):
    """y = gamma x / sqrt(E[x^2] + epsilon)."""
    layer, x = call.layer, inputs[0].with_margin()
    if not _last_axis(layer, x):
        raise UnpredictableError("it normalizes over axes other than the last")
    inverse = inverse_levels(x, 0.0, layer.epsilon)
    found = _divided(
        call, x, x.second_moment + layer.epsilon, Affine.from_layer(layer).gamma, _left(call.inputs[0].shape[-1], 1)
    )
    return replace(found, backward=lambda g: [part.weighed(1.0, inverse) for part in found.backward(g)])


@rule("UnitNormalization", resumes=True)
def unit_normalization(call, inputs):
    """y = x / |x|, so that E[y^2] = 1 / units."""
    layer, x = call.layer, inputs[0].with_margin()
    if not _last_axis(layer, x):
        raise UnpredictableError("it normalizes over axes other than the last")
    units = call.inputs[0].shape[-1]
    return _divided(call, x, x.second_moment, 1 / units, _left(units, 1))


def _divided(call, x: Signal, square: float, gamma: float, left: float) -> LayerPropagation:
    """y = sqrt(gamma / square) x."""
    if not x.known:
        raise UnpredictableError("its input is not predicted, and its output keeps the mean of the input")
    factor = gamma / square if square > 0 else math.nan
    if not math.isfinite(factor):
        raise UnpredictableError("its input has no variance")
    output = replace(
        x,
        profile=(),
        levels=None,
        spread=None,
        mean=x.mean * math.sqrt(factor),
        second_moment=x.second_moment * factor,
        **x.map_autocorrelations(lambda lags: lags.map(lambda v: v * factor)),
        argument=None,
        function=None,
    )
    return LayerPropagation(output, lambda gradient: [gradient.scaled(factor * left)])


@rule("BatchNormalization", resumes=True, parted=True)
def batch_normalization(call, inputs):
    """Averages over all examples and positions of the batch, for each unit, as in training.

    E[mu^2] is the mean product of two elements of a unit. Most such pairs are of different examples, which removes a
    unit's own mean after a relu, say: E[x^2] (1 - 1/pi) is left of E[x^2], hence Yang's explosion of gradients.
    """
    layer, x, examples = call.layer, inputs[0].with_margin(), call.inputs[0].shape[0]
    if layer.axis not in (-1, len(x.size) + 1):
        raise UnpredictableError("its axis is not the last")
    if not layer.trainable:
        raise UnpredictableError("it is frozen and divides by its moving averages")
    if x.parts:
        return _batch_of_parts(call, x)
    common = math.nan
    lost = 0.0
    if x.between_examples is not None:
        common = x.between_examples.mean(x.size)
        if examples:
            common += (x.within_example.mean(x.size) - common) / examples if x.within_example is not None else math.nan
            total = math.nan if None in x.size else math.prod(x.size) * examples
            lost = 2 / total if math.isfinite(total) else 0.0
    if (
        math.isfinite(common) and not x.identically_distributed and not x.edges
    ):  # parts of different variances: each divided by its own
        common = math.nan
    doubt = _fluctuation(x, common, examples)
    lost -= doubt * (1 - lost)
    if (
        x.units is not None and x.units.sample is not None
    ):  # sums of few terms have heavy tails, their variances more so
        doubt *= max((_kurtosis(x.units.sample) - 1) / 2, 1.0)
    propagation = _uneven_units(layer, x, common, normalize(layer, x, common, common, lost))

    def backward(gradient: Gradient) -> list[Gradient]:
        return [
            replace(part, balanced=True, batched=True, doubt=part.doubt + doubt)
            for part in propagation.backward(gradient)
        ]

    return replace(
        propagation,
        output=replace(propagation.output, identically_distributed=True, edges=False, spread=x.spread or 0.0),
        backward=backward,
    )


def _kurtosis(sample: np.ndarray) -> float:
    """Returns the mean fourth power over the squared mean square, of each unit less its mean."""
    centered = sample - sample.mean(axis=(1, 2), keepdims=True)
    squares = (centered**2).mean(axis=(1, 2))
    return float(((centered**4).mean(axis=(1, 2))[squares > 0] / squares[squares > 0] ** 2).mean())


def _fluctuation(x: Signal, common: float, examples: int | None) -> float:
    """Returns by how much the mean of one over a batch's variance exceeds one over its mean.

    Of a Gaussian signal, the relative variance of the batch's variance is 2 / examples times the mean square of the
    correlation between two positions.
    """
    variance = x.second_moment - common
    if not examples or x.within_example is None or not math.isfinite(common) or variance <= 0:
        return 0.0
    squares = x.within_example.map(lambda values: ((values - common) / variance) ** 2).mean(x.size)
    return min(2 * squares / examples, 1.0)


def _uneven_units(layer, x: Signal, common: float, found: LayerPropagation) -> LayerPropagation:
    """Divides units by deviations of their own, where those are known to differ."""
    variance = x.second_moment - common
    if x.units is None or x.units.levels is None or not math.isfinite(variance):
        return replace(found, output=replace(found.output, units=None))
    variances = x.units.levels * variance + layer.epsilon
    inverse = (variance + layer.epsilon) / variances
    affine = Affine.from_layer(layer)
    share = affine.gamma * float((1 - layer.epsilon / variances).mean())
    output = replace(found.output, second_moment=share + affine.beta, units=None)
    if x.units.sample is not None:
        sample = x.units.sample - x.units.sample.mean(axis=(1, 2), keepdims=True)
        sample *= np.sqrt(affine.gamma / (np.var(sample, axis=(1, 2), keepdims=True) + layer.epsilon))
        sample *= math.sqrt(share / float((sample**2).mean()))
        output = replace(output, units=Units(None, sample + affine.beta_mean), **lags_of(sample, x.size))
        if affine.beta:
            output = replace(output, **output.map_autocorrelations(lambda lags: lags.map(lambda v: v + affine.beta)))
    levels = inverse / inverse.mean()

    def backward(gradient: Gradient) -> list[Gradient]:
        return [part.scaled(float(inverse.mean()), unit_levels=levels) for part in found.backward(gradient)]

    return replace(found, output=output, backward=backward)


def _batch_of_parts(call, x: Signal) -> LayerPropagation:
    """Normalizes groups of units that are distributed differently."""
    found = of_parts(x, lambda part: batch_normalization(call, [part]))
    return replace(found, backward=lambda g: [replace(part, balanced=True) for part in found.backward(g)])


@rule("GroupNormalization", resumes=True)
def group_normalization(call, inputs):
    """Averages over all positions of a group of units, for each example."""
    layer, x = call.layer, inputs[0].with_margin()
    if layer.axis not in (-1, len(x.size) + 1):
        raise UnpredictableError("its axis is not the last")
    units = call.inputs[0].shape[-1]
    groups = units if layer.groups == -1 else layer.groups
    together = units / groups

    def shared(lags: Autocorrelation | None) -> float:
        own = lags.mean(x.size) if lags is not None and x.identically_distributed else math.nan
        return own / together + x.mean**2 * (1 - 1 / together)

    elements = math.inf if None in x.size else math.prod(x.size) * together
    shared_means = shared(x.within_example), shared(x.between_examples)
    propagation = normalize(layer, x, *shared_means, min(2 / elements, 1.0))
    return replace(propagation, backward=lambda g: [replace(part, balanced=True) for part in propagation.backward(g)])
