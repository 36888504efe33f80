r"""Rules for max pooling of a Gaussian signal, or of a function of one.

The maximum over a window of correlated Gaussians has no closed form. It is averaged over a fixed quasi-random sample of
windows (or of pairs of windows, for the correlations), accurate to about 1e-3. The gradient goes to the chosen element,
whose activation passes it on more often than others: the largest of four is negative in 1 of 16 windows.

References:
    - Art B. Owen (1995), "Randomly permuted (t, m, s)-nets and (t, s)-sequences",
      https://doi.org/10.1007/978-1-4612-2552-2_19
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._geometry import window_counts, window_offsets
from keras_initkit.prediction.algebra._laws import fitted
from keras_initkit.prediction.algebra._parts import of_parts
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, UnpredictableError
from keras_initkit.prediction.operation_rules._linear import per_axis
from keras_initkit.prediction.operation_rules._rule_table import rule
from keras_initkit.theory._activations import evaluate

_SAMPLES = 2**13
_SMALL = 0.1  # error of a gradient's mean square that is accepted
_LARGEST = 64  # elements of a window


@functools.lru_cache(maxsize=8)
def _normals(count: int) -> np.ndarray:
    """Returns a quasi-random sample of `count` independent N(0, 1) variables, shape (samples, count)."""
    from scipy.special import ndtri
    from scipy.stats.qmc import Sobol

    points = Sobol(count, scramble=True, seed=0).random(_SAMPLES)
    return ndtri(np.clip(points, 1e-12, 1 - 1e-12))


def _draw(covariance: np.ndarray, mean: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1]  # the first points are the most even: they go where most variance is
    scale = vectors[:, order] * np.sqrt(np.maximum(values[order], 0.0))
    return mean + _normals(len(values)) @ scale.T


class _Windows:
    """Samples of windows over the Gaussian signal z of which f is pooled."""

    def __init__(self, x: Signal):
        z = x.argument if x.argument is not None else x
        if not (z.gaussian and z.identically_distributed):
            raise UnpredictableError("its input is not a function of a Gaussian tensor")
        if z.within_example is None:
            raise UnpredictableError("the correlation between neighboring positions is not known")
        self.z, self.within_example, self.function = z, z.within_example, x.function

    def apply(self, z: np.ndarray) -> np.ndarray:
        return z if self.function is None else evaluate(self.function, z.ravel()).reshape(z.shape).astype("float64")

    def covariance(self, sites: np.ndarray) -> np.ndarray:
        difference = np.moveaxis(sites[:, None] - sites[None], -1, 0)
        return self.within_example.at(list(difference)) - self.z.mean**2

    def maximum(self, window: Sequence[int], edge: bool, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Returns maxima over a window, and z at the elements that were chosen.

        `edge` says that a zero of the border is in the window; `strength` is the variance there over the mean of all.
        """
        z = _draw(strength * self.covariance(_sites(window)), self.z.mean)
        values = self.apply(z)
        largest = values.max(axis=1)
        chosen = np.take_along_axis(z, values.argmax(axis=1)[:, None], axis=1)[:, 0]
        return (np.maximum(largest, 0.0) if edge else largest), chosen

    def product(self, window: Sequence[int], shift: Sequence[int] | None, cross: float = 0.0) -> float:
        """Returns E[max max'] of two windows `shift` positions apart; without it, of covariance `cross` throughout."""
        sites = _sites(window)
        count = len(sites)
        if shift is not None:
            joint = self.covariance(np.concatenate([sites, sites + np.asarray(shift)]))
        else:
            own = self.covariance(sites)
            joint = np.block([[own, np.full_like(own, cross)], [np.full_like(own, cross), own]])
        values = self.apply(_draw(joint, self.z.mean))
        return float(np.mean(values[:, :count].max(axis=1) * values[:, count:].max(axis=1)))

    def products(self, window: Sequence[int], covariances: np.ndarray) -> np.ndarray:
        """Returns the same for many covariances between windows that do not overlap, interpolated."""
        unique = np.unique(np.round(covariances, 12))
        if len(unique) > 9:
            unique = np.linspace(unique[0], unique[-1], 9)
        table = [self.product(window, None, float(value)) for value in unique]
        return np.interp(covariances, unique, table)


def _sites(window: Sequence[int]) -> np.ndarray:
    return np.array(list(np.ndindex(*window))).reshape(-1, len(window))


def _pooled(x: Signal, window: Sequence[int], strides: Sequence[int], padding: str) -> tuple[Signal, np.ndarray]:
    """Returns the signal of maxima over windows, and a sample of the chosen elements."""
    if math.prod(window) > _LARGEST:
        raise UnpredictableError(f"its windows have {math.prod(window)} elements, more than the {_LARGEST} predicted")
    windows = _Windows(x)
    z, axes = windows.z, len(window)
    # Kinds of windows: size along each axis, whether a zero is in it, strength of z there, fraction of all windows.
    kinds: list[tuple[tuple[int, ...], bool, float, float]] = [((), False, 1.0, 1.0)]
    for axis, (n, k, s) in enumerate(zip(x.size, window, strides, strict=True)):
        margin = x.margin[axis] if x.margin else (0, 0)
        held = [(k, 1.0)]
        if n is not None:
            inside, starts = window_counts(n, k, s, 1, padding, margin)
            if 0 in inside:
                raise UnpredictableError("some of its windows hold only padding")
            given = z.profile[axis] if z.profile else None
            strengths = np.ones(n) if given is None else given
            means = [float(strengths[max(start, 0) : start + k].mean()) for start in starts]
            held = list(zip(inside, np.round(means, 6).tolist(), strict=True))
        kinds = [
            ((*sizes, count), edge or (count < k and any(margin)), strength * mean, share * held.count(one) / len(held))
            for sizes, edge, strength, share in kinds
            for one in sorted(set(held))
            for count, mean in [one]
        ]
    mean = second = squared_mean = 0.0
    law = []
    for sizes, edge, strength, share in kinds:
        values, _ = windows.maximum(sizes, edge, strength)
        law.append(values[: math.ceil(share * len(values))])
        mean, second = mean + share * values.mean(), second + share * np.mean(values**2)
        squared_mean += share * values.mean() ** 2
    full, chosen = windows.maximum(window, False)
    # Windows at an edge hold fewer elements: what is common to full windows is scaled to the mean of all.
    within = (second - squared_mean) / max(float(full.var()), 1e-300)

    def pool(lags: Autocorrelation, at_zero: float | None) -> Autocorrelation:
        averaged = lags.windowed(window, strides)  # covariances between windows, as means over their pairs
        near = windows.products(window, averaged.near - z.mean**2)
        far = windows.products(window, averaged.far - z.mean**2)
        pooled = Autocorrelation(near, far)
        if at_zero is not None:
            reach = pooled.reach
            overlap = [min((p - 1) // s, r) for p, s, r in zip(window, strides, reach, strict=True)]
            for lag in itertools.product(*(range(-o, o + 1) for o in overlap)):
                place = tuple(r + d for r, d in zip(reach, lag, strict=True))
                mirrored = tuple(r - d for r, d in zip(reach, lag, strict=True))
                if lag > (0,) * axes:
                    shift = [d * s for d, s in zip(lag, strides, strict=True)]
                    pooled.near[place] = pooled.near[mirrored] = windows.product(window, shift)
        pooled = pooled.map(lambda values: mean**2 + within * (values - full.mean() ** 2))
        if at_zero is not None:
            pooled.near[pooled.reach] = at_zero
        return pooled

    same = pool(windows.within_example, float(second))
    other = None if z.between_examples is None else pool(z.between_examples, None)
    edged = len({sizes for sizes, *_ in kinds}) > 1
    offsets = window_offsets(x.size, window, strides, (1,) * axes, padding, x.margin, x.profile)
    profile = () if edged else offsets.profile
    output = Signal(
        float(mean),
        float(second),
        offsets.size,
        same,
        other,
        identically_distributed=not edged,
        edges=edged,
        law=fitted(np.concatenate(law), float(mean), float(second - mean**2)),
        sources=x.sources,
        profile=profile,
    )
    return output, chosen


@rule("MaxPooling1D", "MaxPooling2D", "MaxPooling3D", parted=True)
def max_pooling(call, inputs):
    """y = max over a window; the gradient goes to one element of it."""
    layer, x = call.layer, replace(inputs[0], units=None)
    if x.parts:
        return of_parts(x, lambda part: max_pooling(call, [part]))
    axes = len(x.size)
    window, strides = per_axis(layer.pool_size, axes), per_axis(layer.strides, axes)
    output, chosen = _pooled(x, window, strides, layer.padding)
    outputs_per_input = 1.0
    for n, m, s in zip(x.size, output.size, strides, strict=True):
        outputs_per_input *= 1 / s if n is None or m is None else m / n
    apart = all(s >= k for s, k in zip(strides, window, strict=True))

    def backward(gradient: Gradient) -> list[Gradient]:
        # One element is chosen by at most as many windows as overlap, whose gradients share at most this much.
        common = gradient.between_positions
        overlapping = math.prod(k / s for k, s in zip(window, strides, strict=True)) - 1
        if not apart and (common is None or overlapping * abs(common) > _SMALL * gradient.second_moment):
            raise UnpredictableError(
                "gradients that are correlated between neighboring positions add up in overlapping windows",
                part=gradient.scaled(math.nan, chosen=chosen, chosen_fraction=1.0),
            )
        return [gradient.scaled(outputs_per_input, chosen=chosen, chosen_fraction=1.0)]

    return LayerPropagation(output, backward)


@rule("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D")
def global_max_pooling(call, inputs):
    """One window over all positions."""
    x = inputs[0]
    if None in x.size or any(map(any, x.margin)):
        raise UnpredictableError("its number of positions is not known, or zero padding is among them")
    output, chosen = _pooled(x, x.size, x.size, "valid")
    axes = len(call.outputs[0].shape) - 2
    lags = output.map_autocorrelations(lambda values: Autocorrelation.white(values.zero, values.zero, axes))
    output = replace(output, size=(1,) * axes, **lags)
    positions = math.prod(x.size)
    return LayerPropagation(output, lambda gradient: [
        gradient.scaled(1 / positions, chosen=chosen, chosen_fraction=1.0)])  # fmt: skip
