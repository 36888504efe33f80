"""Means that are subtracted, and a variance that is divided by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._laws import law_of
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, UnpredictableError
from keras_initkit.prediction.operation_rules._linear import host_values

# Times epsilon, at least, is a mean square of which the means are not known. While they hold up to 9/10 of it, the
# variance is 3 epsilon or more, and v / (v + epsilon) is off by at most a factor of 1.3.
_FAR = 30.0


@dataclass(frozen=True)
class Affine:
    """Mean square of gamma, mean and mean square of beta."""

    gamma: float
    beta_mean: float
    beta: float

    @classmethod
    def from_layer(cls, layer) -> Affine:
        """Measures a layer's gamma and beta; 1 and 0 where it has none."""
        gamma, beta = getattr(layer, "gamma", None), getattr(layer, "beta", None)
        if gamma is None and not isinstance(getattr(layer, "scale", True), bool):  # RMSNormalization calls it scale
            gamma = layer.scale
        square = 1.0 if gamma is None else float((host_values(gamma) ** 2).mean())
        if beta is None:
            return cls(square, 0.0, 0.0)
        return cls(square, float(host_values(beta).mean()), float((host_values(beta) ** 2).mean()))


def normalize(layer, x: Signal, mean_square: float, mean_product: float, lost: float) -> LayerPropagation:
    """Subtracts means mu, divides by the standard deviation, applies gamma and beta.

    Args:
        mean_square: E[mu^2]; NaN where it is not known.
        mean_product: The same for the means that two different examples subtract.
        lost: Fraction of the gradient that the means remove.
    """
    variance = x.second_moment - mean_square
    affine = Affine.from_layer(layer)
    known = math.isfinite(variance)
    if known and variance <= 0:
        raise UnpredictableError("its input has no variance")
    # Where the variance is not known, it is taken to be far above epsilon.
    factor = affine.gamma / (variance + layer.epsilon) if known else math.nan
    most = variance if known else x.variance if math.isfinite(x.second_moment) else math.inf
    if not known and most < _FAR * layer.epsilon:
        raise UnpredictableError("its input has a variance near its epsilon, and means that are not known")
    share = 1.0 if math.isinf(most) else most / (most + layer.epsilon)

    def finish(lags: Autocorrelation | None, shared: float) -> Autocorrelation | None:
        return None if lags is None or not known else lags.map(lambda v: factor * (v - shared) + affine.beta)

    second = affine.gamma * share + affine.beta
    output = replace(
        x,
        mean=affine.beta_mean,
        second_moment=second,
        within_example=finish(x.within_example, mean_square),
        between_examples=finish(x.between_examples, mean_product),
        law=None if x.gaussian else law_of(x),
        argument=None,
        function=None,
    )

    def backward(gradient: Gradient) -> list[Gradient]:
        if not known:
            raise UnpredictableError("the variance that it divides by is not known")
        return [gradient.scaled(factor * max(1 - lost, 0.0), parts=())]

    return LayerPropagation(output, backward)
