"""Gaussian quadrature of activations: smooth, bent or torn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.polynomial.legendre import legder, leggauss, legvander

from keras_initkit.theory._activations import evaluate

_DEGREE = 24
_NODES, _WEIGHTS = leggauss(_DEGREE)
_SERIES = np.linalg.inv(legvander(_NODES, _DEGREE - 1))
# Values at the nodes to the slopes there of the polynomial through them, or, where values are rounded to float32, of
# the one of half the degree that fits them best: the higher the degree, the more it makes of rounding.
_SLOPES, _ROUNDED_SLOPES = (legvander(_NODES, n - 2) @ legder(_SERIES[:n]) for n in (_DEGREE, _DEGREE // 2))
_REACHES = range(14, 38, 2)  # beyond 37 the normal density is no number of double precision
_KINKS = np.array([-6, -3, -1, -0.5, 0, 0.5, 1, 3, 6])  # where Keras' own activations have theirs


class Sample(NamedTuple):
    """A function at the nodes of a quadrature: E[g(z, f)] = weights @ g(z, values) for z ~ N(0, 1)."""

    z: np.ndarray
    weights: np.ndarray
    values: np.ndarray


_INFINITE = Sample(np.zeros(1), np.ones(1), np.full(1, math.inf))


@np.errstate(over="ignore", invalid="ignore")  # what overflows ends as an infinite value
def sample(
    function: Callable, mean: float = 0.0, variance: float = 1.0, derivative: bool = False, power: int = 2
) -> Sample:
    """Returns f, or f', at mean + sqrt(variance) z, on panels that are halved until E[f^power] is exact to rounding.

    A panel is halved wherever f has a kink or a jump inside. f' is that of the polynomial through f's values on
    a panel: no step size, and no loss where f is smooth; at a jump it is that of either side, as in backpropagation.
    Where E[f^power] diverges, since f grows faster than the normal density falls or has a pole, or where f is NaN, the
    sample is one infinite value.
    """
    stddev = math.sqrt(variance)
    single = False

    def on(panels: np.ndarray) -> tuple[np.ndarray, ...]:
        """Nodes, weights and values of each panel, and its share of the integral of |f|^power with f's sign."""
        nonlocal single
        half = np.diff(panels, axis=1) / 2
        z = panels.mean(axis=1)[:, None] + half * _NODES
        values = evaluate(function, mean + stddev * z.ravel())
        single, rounding = values.dtype != "float64", np.finfo(values.dtype).eps
        values = values.reshape(z.shape).astype("float64")
        if derivative:
            slopes = (_ROUNDED_SLOPES if single else _SLOPES) / (half * stddev)[..., None]
            rounding = rounding * np.abs(values).max(axis=1, keepdims=True) * np.abs(slopes).sum(axis=-1)
            # Of what differs from the first value: a constant has a slope of exactly 0, as has what is rounding alone.
            values = np.einsum("pij,pj->pi", slopes, values - values[:, :1])
            values = np.where((np.abs(values) <= rounding) & np.isfinite(rounding), 0, values)
        weights = half * _WEIGHTS * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        return z, weights, values, (weights * values**power).sum(axis=1)

    for reach in _REACHES:
        borders = np.concatenate([np.arange(-reach, reach + 1.0), (_KINKS - mean) / stddev])
        borders = np.unique(borders[np.abs(borders) <= reach])
        borders = borders[np.append(True, np.diff(borders) > 1e-9)]  # equal but for rounding
        panels = np.stack([borders[:-1], borders[1:]], axis=1)
        *_, whole = on(panels)
        scale = np.abs(whole).sum()
        if not math.isfinite(scale):
            return _INFINITE
        if max(abs(whole[0]), abs(whole[-1])) <= 1e-6 * scale:
            break
    else:
        return _INFINITE
    # What two quadratures may differ by is rounding: JAX has no float64 unless told so, a user's function may cast.
    # Differences of rounded values lose a digit, and within a narrow panel nothing else is left of them.
    tolerance = 1e-10 if not single else 2e-6 if derivative else 2e-7
    narrowest = 1e-12 if not single else max(1e-4, 1e-3 * abs(mean) / stddev) if derivative else 1e-6
    done: list[tuple[np.ndarray, ...]] = []
    settled: list[float] = []  # what each halving has added to the integral
    left: list[float] = []  # and what it has left on panels that are halved again
    while True:
        middle = panels.mean(axis=1)
        halves = np.stack([panels[:, 0], middle, middle, panels[:, 1]], axis=1).reshape(-1, 2)
        parts = on(halves)
        pairs = parts[3].reshape(-1, 2)
        # Of NaN false: it is kept.
        rough = np.abs(pairs.sum(axis=1) - whole) > tolerance * max(scale, sum(settled))
        again = np.repeat(rough, 2)
        pairs = np.abs(pairs)
        settled.append(pairs[~rough].sum())
        left.append(pairs[rough].sum())
        # A kink leaves one panel to halve; a function that is rough all over has ever more of them from the beginning,
        # one with a pole only where its surroundings are so narrow that rounding makes them rough.
        many, deep = len(panels) > 1000, len(settled) > 8
        narrow = rough.any() and (np.ptp(panels[rough][0]) < narrowest or (many and deep))
        if narrow and deep and _diverges(settled, scale):
            return _INFINITE
        if narrow and deep and derivative and left[-1] > max(2 * left[-3], sum(settled)):
            # Values that part by the same amount however near their arguments are: a jump, across which the slope says
            # nothing of either side's, if it lies in one half alone.
            if (pairs.max(axis=1) <= 100 * pairs.min(axis=1))[rough].any():
                return _INFINITE
            parts[1][again] = 0
        if narrow or many:
            again[:] = False
        done.append(tuple(part[~again].ravel() for part in parts[:3]))
        if not again.any():
            break
        panels, whole = halves[again], parts[3][again]
    z, weights, values = (np.concatenate(each) for each in zip(*done, strict=True))
    if derivative and np.abs(weights * values**power).sum() < 100 * tolerance * scale:
        values = np.zeros_like(values)  # nothing is left but jumps
    return Sample(z, weights, values)


def _diverges(settled: list[float], scale: float) -> bool:
    """Whether the integral over ever nearer surroundings of a point does not fall: then it has no end.

    It halves with each panel's width around a jump, stays the same around 1 / |x|, and grows around 1 / x^2.
    """
    third = len(settled) // 3
    late, before = sum(settled[-third:]), sum(settled[-2 * third : -third])
    return late > max(0.7 * before, 0.05 * scale)  # the second where there is nothing but rounding
