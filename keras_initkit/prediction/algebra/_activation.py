r"""How an elementwise function changes a Gaussian signal and its gradient.

    E[f(z)], E[f(z)^2], E[f(u) f(v)] for z of the signal's own mean and variance, u and v of its correlation;
    E[g_z^2] = E[g_y^2] E[f'(z)^2], with the gradient g_y independent of z

References:
    - Poole et al. (2016), length and correlation maps, https://arxiv.org/abs/1606.05340
    - Schoenholz et al. (2017), gradient independence, https://arxiv.org/abs/1611.01232
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._geometry import Profile, reweight_profile
from keras_initkit.prediction.algebra._laws import apply, fitted, lags_of, law_of
from keras_initkit.prediction.algebra._levels import even
from keras_initkit.prediction.algebra._parts import of_parts
from keras_initkit.prediction.algebra._resuming import moved_to
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, UnpredictableError
from keras_initkit.prediction.algebra._spread import MOST, Response, response
from keras_initkit.theory._activations import evaluate, resolve
from keras_initkit.theory._gains import expectation
from keras_initkit.theory._mean_field import covariance


def through_activation(activation: Any, before: LayerPropagation) -> LayerPropagation:
    """Applies a layer's activation after its propagation; `None` and linear change nothing."""
    function = resolve(activation)
    if function is keras.activations.linear:
        return before
    try:
        after = activate(function, before.output)
    except UnpredictableError as error:  # a softmax at the end: what it is applied to is known all the same
        unknown = Signal.unknown(before.output.size)
        return LayerPropagation(unknown, lambda gradient: [], before.output, reason=str(error))
    weights = before.weights

    def to_weights(gradient: Gradient, examples: int) -> dict[str, float]:
        return weights(after.backward(gradient)[0], examples) if weights else {}

    return LayerPropagation(
        after.output,
        lambda gradient: before.backward(after.backward(gradient)[0]),
        before.output,
        lambda gradient: after.backward(gradient)[0],
        to_weights if weights else None,
        parts=before.parts,
    )


def activate(function: Callable, z: Signal) -> LayerPropagation:
    """y = f(z), for Gaussian z and an f that acts on each element by itself."""
    if function is keras.activations.linear:
        return LayerPropagation(z, lambda gradient: [gradient])
    if z.parts:
        return of_parts(z, lambda part: activate(function, part))
    if z.units is not None and z.units.sample is not None:
        return _activate_sample(function, z, z.units.sample)
    law = None if z.gaussian and z.identically_distributed else law_of(z)
    if law is not None:
        return _activate_law(function, z, law)
    if not z.gaussian:
        reason = "the input of its activation is not Gaussian, so the variance is not enough"
        raise UnpredictableError(reason, _guess(function, z))
    if not z.identically_distributed:
        raise UnpredictableError("the input of its activation has units of different variances")
    if any(map(any, z.margin)):
        raise UnpredictableError("the input of its activation has zero padding")
    try:
        mean = moment(function, z, 1)
        second = moment(function, z, 2)
        lags = z.map_autocorrelations(functools.partial(correlate, function, z))
    except ValueError as error:  # softmax and its like
        name = getattr(function, "__name__", type(function).__name__)
        raise UnpredictableError(f"its activation, {name}, does not act on each element by itself") from error
    if not (math.isfinite(mean) and math.isfinite(second)):
        raise UnpredictableError("its activation has no finite mean square over this input")
    if z.spread:  # the correlations of a Gaussian signal, moved to the moments of a mixture
        narrow = replace(z, spread=0.0)
        guess = replace(z, mean=moment(function, narrow, 1), second_moment=moment(function, narrow, 2), **lags)
        if guess.variance > 0:
            lags = moved_to(guess, replace(z, mean=mean, second_moment=second))
    profile = _profile(function, z, second)
    inner, argument = (z.function, z.argument) if z.function and z.argument is not None else (None, z)
    output = Signal(
        mean,
        second,
        z.size,
        **lags,
        sources=z.sources,
        argument=argument,
        function=function if inner is None else lambda x: function(inner(x)),
        profile=profile,
        axes=z.axes,
        levels=_levels(function, z, second),
        across_units=None if z.across_units is None else _of_units(function, z),
        spread=None if z.spread is None else min(z.spread * _response(function, z).output ** 2, MOST),
    )

    def backward(gradient: Gradient) -> list[Gradient]:
        if gradient.values is not None and gradient.chosen is None:
            slope = float((slopes_at(function, z, law_of(z)) * gradient.values).mean())
        else:
            slope = moment(function, z, 2, derivative=True)
        if gradient.chosen is not None:
            at_chosen = float(np.mean(derivative_at(function, gradient.chosen, z.variance) ** 2))
            slope += gradient.chosen_fraction * (at_chosen - slope)
        common = None
        if gradient.common is not None and z.within_example is not None and z.variance > 0:
            alike = (z.within_example.off_zero(z.size) - z.mean**2) / z.variance  # slopes at two positions
            shared = moment(function, z, 1, derivative=True) ** 2
            common = gradient.common * (shared + alike * (slope - shared))
        found = gradient.scaled(slope, common=common)
        return [found if z.spread is None else _along_scales(found, z.spread, _response(function, z))]

    return LayerPropagation(output, backward)


def _along_scales(gradient: Gradient, spread: float, by: Response) -> Gradient:
    """Lets a gradient meet the slopes of an activation, which are larger where it is larger."""
    together = by.slope * by.output * gradient.sensitivity * spread + by.together * gradient.own
    return replace(
        gradient.scaled(max(1 + together, 0.0), common=gradient.common),
        sensitivity=by.slope + by.output * gradient.sensitivity,
        own=by.slope + by.output * gradient.own,
    )


def _response(function: Callable, z: Signal) -> Response:
    return response(function, z.mean, _variance_of_argument(z))


def _guess(function: Callable, z: Signal) -> Signal | None:
    """Returns what the function makes of a Gaussian signal of the same moments."""
    try:
        return activate(function, replace(z, gaussian=True, identically_distributed=True, parts=())).output
    except UnpredictableError:
        return None


def _activate_law(function: Callable, z: Signal, law: np.ndarray) -> LayerPropagation:
    """Applies a function to a signal of a known law, whose correlations pass as those of a Gaussian signal."""
    guess = activate(function, replace(z, gaussian=True, identically_distributed=True, law=None))
    values = apply(function, law)
    mean, second = float(values.mean()), float((values**2).mean())
    output = replace(guess.output, mean=mean, second_moment=second, law=values, argument=None, function=None,
                     identically_distributed=z.identically_distributed, edges=z.edges)  # fmt: skip
    if guess.output.variance > 0:
        output = replace(output, **moved_to(guess.output, output))
    slopes, usual = slopes_at(function, z, law), moment(function, z, 2, derivative=True)
    in_order = bool(np.all(np.diff(values) >= 0))  # else a value of the output is that of several inputs

    def backward(gradient: Gradient) -> list[Gradient]:
        weights = slopes if gradient.values is None or not in_order else slopes * gradient.values
        (found,) = guess.backward(replace(gradient, values=None))
        if gradient.chosen is not None or usual <= 0 or weights.mean() <= 0:
            return [found]
        return [found.scaled(weights.mean() / usual, values=weights / weights.mean())]

    return LayerPropagation(output, backward)


def _activate_sample(function: Callable, z: Signal, sample: np.ndarray) -> LayerPropagation:
    """Applies a function to a signal of which there is a sample."""
    guess = activate(function, replace(z, units=None))
    values = apply(function, sample)
    mean, second = float(values.mean()), float((values**2).mean())
    output = replace(guess.output, mean=mean, second_moment=second, law=fitted(values, mean, second - mean**2),
                     argument=None, function=None, **lags_of(values, z.size))  # fmt: skip
    usual = moment(function, z, 2, derivative=True)
    slope = float((derivative_at(function, sample.ravel(), z.variance) ** 2).mean())

    def backward(gradient: Gradient) -> list[Gradient]:
        (found,) = guess.backward(gradient)
        return [found.scaled(slope / usual) if gradient.chosen is None and usual > 0 else found]

    return LayerPropagation(output, backward)


def _of_units(function: Callable, z: Signal) -> float:
    """Returns E[f(z_u) f(z_v)] of two units."""
    return float(correlate(function, z, Autocorrelation(np.asarray(z.across_units), np.asarray(z.across_units))).near)


def _profile(function: Callable, z: Signal, second: float) -> Profile:
    """Returns the profile of f(z): E[f(z)^2] is a power of the variance of z, to first order."""
    lows = [float(values.min()) for values in z.profile if values is not None and values.min() < 1 - 1e-9]
    low = max(min(lows, default=1.0), 0.05)
    if low == 1.0 or _variance_of_argument(z) == 0 or second <= 0:
        return ()
    weaker = replace(z, second_moment=z.mean**2 + low * z.variance)
    power = math.log(max(moment(function, weaker, 2), 1e-300) / second) / math.log(low)
    return reweight_profile(z.profile, lambda values: values**power)


def _levels(function: Callable, z: Signal, second: float) -> np.ndarray | None:
    """Returns the levels of f(z) by the same power."""
    if z.levels is None or _variance_of_argument(z) == 0 or second <= 0:
        return None
    weaker = replace(z, second_moment=z.mean**2 + 0.5 * z.variance)
    power = math.log(max(moment(function, weaker, 2), 1e-300) / second) / math.log(0.5)
    return even(np.maximum(z.levels, 1e-12) ** power)


def moment(function: Callable, z: Signal, power: int, derivative: bool = False) -> float:
    """Returns E[f(z)^power], or E[f'(z)^power]."""
    variance = _variance_of_argument(z)
    if not z.spread:
        return _moment(function, power, derivative, z.mean, variance)
    scales = 1 - math.sqrt(z.spread), 1 + math.sqrt(z.spread)  # two that have the spread
    return sum(_moment(function, power, derivative, z.mean, scale * variance) for scale in scales) / 2


@functools.lru_cache(maxsize=1024)
def _moment(function: Callable, power: int, derivative: bool, mean: float, variance: float) -> float:
    return expectation(function, power, derivative, mean, variance)


def correlate(function: Callable, z: Signal, lags: Autocorrelation) -> Autocorrelation:
    """Returns E[f(z_a) f(z_b)] where `lags` holds E[z_a z_b]."""
    variance = _variance_of_argument(z)
    if variance == 0:
        return lags.map(lambda values: np.full_like(values, moment(function, z, 1) ** 2))
    values = np.concatenate([lags.near.ravel(), lags.far.ravel()])
    unique, places = np.unique(np.clip((values - z.mean**2) / variance, -1.0, 1.0), return_inverse=True)
    shifted = function if z.mean == 0 else _shifted(function, z.mean)
    mapped = np.asarray(covariance(shifted, unique, variance), "float64")[places.ravel()]
    near, far = np.split(mapped, [lags.near.size])
    return Autocorrelation(near.reshape(lags.near.shape), far.reshape(lags.far.shape))


def _shifted(function: Callable, mean: float) -> Callable:
    return lambda values: function(values + mean)


def _variance_of_argument(z: Signal) -> float:
    """Returns the variance, 0 where it is only rounding of the mean."""
    return z.variance if z.variance > 1e-12 * z.second_moment else 0.0


def slopes_at(function: Callable, z: Signal, law: np.ndarray | None) -> np.ndarray:
    """Returns f'^2 at the values of a law."""
    assert law is not None
    return derivative_at(function, law, z.variance) ** 2


def derivative_at(function: Callable, z: np.ndarray, variance: float) -> np.ndarray:
    """Returns f' by central differences over a thousandth of a standard deviation."""
    step = 1e-3 * math.sqrt(variance)
    return (evaluate(function, z + step) - evaluate(function, z - step)).astype("float64") / (2 * step)
