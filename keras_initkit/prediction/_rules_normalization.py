r"""Normalisation: y = gamma (x - mu) / sqrt(v + epsilon) + beta, with mu and v over some of the axes.

    backward: g_x = gamma / sqrt(v + epsilon) (g - <g> - y <g y>), whose means <> are small where they go over much

What v is follows from how alike elements are that share their mu: Var = E[x^2] - E[mu^2].

Source: Ioffe and Szegedy 2015; Ba et al. 2016; Yang et al. 2019 (batch normalisation at initialization).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from keras_initkit.prediction._autocorrelation import Lags
from keras_initkit.prediction._rules import rule
from keras_initkit.prediction._rules_kernels import values_of
from keras_initkit.prediction._signals import Gradient, Passage, Signal, UnpredictableError


@dataclass(frozen=True)
class Affine:
    """Mean squares of gamma, and mean and mean square of beta."""

    gamma: float
    beta_mean: float
    beta: float

    @classmethod
    def of(cls, layer) -> Affine:
        """Those of a layer as it stands; 1 and 0 where it has none."""
        gamma, beta = getattr(layer, "gamma", None), getattr(layer, "beta", None)
        gamma = getattr(layer, "scale", None) if gamma is None and type(layer).__name__ == "RMSNormalization" else gamma
        square = 1.0 if gamma is None else float((values_of(gamma) ** 2).mean())
        if beta is None:
            return cls(square, 0.0, 0.0)
        return cls(square, float(values_of(beta).mean()), float((values_of(beta) ** 2).mean()))


def normalised(
    layer, x: Signal, variance: float, epsilon: float, same: Lags | None, other: Lags | None, lost: float
) -> Passage:
    """The passage, from products of centred elements. `lost`: share of the gradient that the means take away."""
    affine = Affine.of(layer)
    known = math.isfinite(variance)
    if known and variance <= 0:
        raise UnpredictableError("what it reads has no variance")
    # Where the variance is not known, it is taken to be far above epsilon.
    factor = affine.gamma / (variance + epsilon) if known else math.nan

    def finish(lags: Lags | None) -> Lags | None:
        return None if lags is None or not known else lags.map(lambda v: factor * v + affine.beta)

    second = affine.gamma * (variance / (variance + epsilon) if known else 1.0) + affine.beta
    output = replace(
        x,
        mean=affine.beta_mean,
        second=second,
        same=finish(same),
        other=finish(other),
        source=None,
        function=None,
    )

    def backward(gradient: Gradient) -> list[Gradient]:
        if not known:
            raise UnpredictableError("the variance that it divides by is not known")
        return [gradient.scaled(factor * max(1 - lost, 0.0))]

    return Passage(output, backward)


def _minus(lags: Lags | None, value: float) -> Lags | None:
    return None if lags is None else lags.map(lambda v: v - value)


def _last_axis(layer, x: Signal) -> bool:
    axis = layer.axis if isinstance(layer.axis, int) else tuple(layer.axis)
    rank = len(x.size) + 2
    return axis in (-1, rank - 1, (-1,), (rank - 1,), [-1])


@rule("LayerNormalization", resumes=True)
def layer_normalization(call, inputs):
    """mu and v are those of one example's units at one position: of many units, so E[mu^2] = E[x]^2."""
    layer, x = call.layer, inputs[0].settled()
    if not _last_axis(layer, x):
        raise UnpredictableError("it normalises over other axes than the last")
    if getattr(layer, "rms_scaling", False):
        raise UnpredictableError("its rms_scaling is on")
    units = call.inputs[0].shape[-1]
    square = x.mean**2
    x = replace(x, profile=())  # each position is divided by its own
    return normalised(layer, x, x.second - square, layer.epsilon, _minus(x.same, square), _minus(x.other, square),
                      2 / units)  # fmt: skip


@rule("RMSNormalization", resumes=True)
def rms_normalization(call, inputs):
    """y = gamma x / sqrt(E[x^2] + epsilon)."""
    layer, x = call.layer, inputs[0].settled()
    if not _last_axis(layer, x):
        raise UnpredictableError("it normalises over other axes than the last")
    return _divided(call, x, x.second + layer.epsilon, Affine.of(layer).gamma, 1 / call.inputs[0].shape[-1])


@rule("UnitNormalization", resumes=True)
def unit_normalization(call, inputs):
    """y = x / |x|, so that E[y^2] = 1 / units."""
    layer, x = call.layer, inputs[0].settled()
    if not _last_axis(layer, x):
        raise UnpredictableError("it normalises over other axes than the last")
    units = call.inputs[0].shape[-1]
    return _divided(call, x, x.second, 1 / units, 1 / units)


def _divided(call, x: Signal, square: float, gamma: float, lost: float) -> Passage:
    """y = sqrt(gamma / square) x; where x is not known, its mean is not either, but its mean square is gamma."""
    if not x.known:
        raise UnpredictableError("what it reads is not predicted, and its output keeps the mean of that")
    factor = gamma / square if square > 0 else math.nan
    if not math.isfinite(factor):
        raise UnpredictableError("what it reads has no variance")
    output = replace(
        x,
        profile=(),
        mean=x.mean * math.sqrt(factor),
        second=x.second * factor,
        **x.map_lags(lambda lags: lags.map(lambda v: v * factor)),
        source=None,
        function=None,
    )
    return Passage(output, lambda gradient: [gradient.scaled(factor * (1 - lost))])


@rule("BatchNormalization", resumes=True)
def batch_normalization(call, inputs):
    """As in training: mu and v are those of one unit over all examples and positions of the batch.

    E[mu^2] is the mean product of two elements of a unit. Most such pairs are of different examples, so that a unit's
    own mean after a relu, say, is taken out: E[x^2] (1 - 1/pi) is left of E[x^2], hence Yang's explosion of gradients.
    """
    layer, x, examples = call.layer, inputs[0].settled(), call.inputs[0].shape[0]
    if layer.axis not in (-1, len(x.size) + 1):
        raise UnpredictableError("it normalises another axis than the last")
    if not layer.trainable:
        raise UnpredictableError("it is frozen, and so divides by its moving averages")
    common = math.nan
    lost = 0.0
    if x.other is not None:
        common = x.other.mean(x.size)
        if examples:
            common += (x.same.mean(x.size) - common) / examples if x.same is not None else math.nan
            total = math.nan if None in x.size else math.prod(x.size) * examples
            lost = 2 / total if math.isfinite(total) else 0.0
    if math.isfinite(common) and not x.alike:  # parts of different variances: each divided by its own
        common = math.nan
    same, other = _minus(x.same, common), _minus(x.other, common)
    passage = normalised(layer, x, x.second - common, layer.epsilon, same, other, lost)

    def backward(gradient: Gradient) -> list[Gradient]:
        return [replace(part, balanced=True) for part in passage.backward(gradient)]

    return replace(passage, output=replace(passage.output, alike=True), backward=backward)


@rule("GroupNormalization", resumes=True)
def group_normalization(call, inputs):
    """mu and v are those of one example over all positions of a group of units."""
    layer, x = call.layer, inputs[0].settled()
    if layer.axis not in (-1, len(x.size) + 1):
        raise UnpredictableError("it normalises another axis than the last")
    units = call.inputs[0].shape[-1]
    groups = units if layer.groups == -1 else layer.groups
    together = units / groups

    def shared(lags: Lags | None) -> float:
        own = lags.mean(x.size) if lags is not None and x.alike else math.nan
        return own / together + x.mean**2 * (1 - 1 / together)

    elements = math.inf if None in x.size else math.prod(x.size) * together
    passage = normalised(layer, x, x.second - shared(x.same), layer.epsilon, _minus(x.same, shared(x.same)),
                         _minus(x.other, shared(x.other)), min(2 / elements, 1.0))  # fmt: skip
    return replace(passage, backward=lambda g: [replace(part, balanced=True) for part in passage.backward(g)])
