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
_GRID = np.arange(-14.0, 15.0)
_KINKS = np.array([-6, -3, -1, -0.5, 0, 0.5, 1, 3, 6])  # where Keras' own activations have theirs


class Sample(NamedTuple):
    """A function at the nodes of a quadrature: E[g(z, f)] = weights @ g(z, values) for z ~ N(0, 1)."""

    z: np.ndarray
    weights: np.ndarray
    values: np.ndarray


@np.errstate(over="ignore", invalid="ignore")  # what overflows ends as an infinite value
def sample(
    function: Callable, mean: float = 0.0, variance: float = 1.0, derivative: bool = False, power: int = 2
) -> Sample:
    """f, or f', at mean + sqrt(variance) z, on panels that are halved until E[f^power] is exact to rounding.

    A panel is halved wherever f has a kink or a jump inside. f' is that of the polynomial through f's values on
    a panel: no step size, and no loss where f is smooth. Where f grows faster than the normal density falls, all
    that is returned is one infinite value.
    """
    stddev = math.sqrt(variance)
    done: list[tuple[np.ndarray, ...]] = []
    borders = np.concatenate([_GRID, (_KINKS - mean) / stddev])
    borders = np.unique(borders[np.abs(borders) <= _GRID[-1]])
    borders = borders[np.append(True, np.diff(borders) > 1e-9)]  # equal but for rounding
    panels = np.stack([borders[:-1], borders[1:]], axis=1)
    single = False

    def on(panels: np.ndarray) -> tuple[np.ndarray, ...]:
        """Nodes, weights and values of each panel, and its share of the integral of |f|^power with f's sign."""
        nonlocal single
        half = np.diff(panels, axis=1) / 2
        z = panels.mean(axis=1)[:, None] + half * _NODES
        values = evaluate(function, mean + stddev * z.ravel())
        single = values.dtype != "float64"
        values = values.reshape(z.shape).astype("float64")
        if derivative:
            values = values @ (_ROUNDED_SLOPES if single else _SLOPES).T / (half * stddev)
        weights = half * _WEIGHTS * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        return z, weights, values, (weights * values**power).sum(axis=1)

    *_, whole = on(panels)
    if not max(abs(whole[0]), abs(whole[-1])) <= 1e-6 * np.abs(whole).sum():
        return Sample(np.zeros(1), np.ones(1), np.full(1, math.inf))
    # What two quadratures may differ by is rounding: JAX has no float64 unless told so, a user's function may cast.
    # Differences of rounded values lose a digit, and within a narrow panel nothing else is left of them.
    tolerance = 1e-10 if not single else 2e-6 if derivative else 2e-7
    narrowest = 1e-12 if not single else max(1e-4, 1e-3 * abs(mean) / stddev) if derivative else 1e-6
    scale = np.abs(whole).sum()
    while True:
        middle = panels.mean(axis=1)
        halves = np.stack([panels[:, 0], middle, middle, panels[:, 1]], axis=1).reshape(-1, 2)
        parts = on(halves)
        rough = np.abs(parts[3].reshape(-1, 2).sum(axis=1) - whole) > tolerance * scale  # of NaN false: it is kept
        # A kink leaves one panel to halve; a function that is rough all over would have ever more of them.
        if not rough.any() or len(panels) > 1000 or np.ptp(panels[rough][0]) < narrowest:
            rough[:] = False
        again = np.repeat(rough, 2)
        done.append(tuple(part[~again].ravel() for part in parts[:3]))
        if not rough.any():
            return Sample(*(np.concatenate(each) for each in zip(*done, strict=True)))
        panels, whole = halves[again], parts[3][again]
