r"""The covariance of two signals after an activation, from its Hermite series.

With f(sqrt(q) z) = sum_k a_k He_k(z) / sqrt(k!), two Gaussians u and v of variance q and correlation c have
E[f(u) f(v)] = sum_k a_k^2 c^k (Mehler's formula).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.polynomial.polynomial import polyval

from keras_initkit.theory._quadrature import Sample

_ORDER = 1024
_NODES, _WEIGHTS = leggauss(24)


class HermiteSeries:
    """E[f(u) f(v)] as a function of the correlation of u and v.

    The series of a smooth function is cut where nothing is left; that of a function with a kink or a jump falls off
    as a power of k, which is fitted and summed in closed form, so that c = 1 gives E[f^2] exactly. Errors relative to
    it: rounding for smooth functions, below 1e-6 for kinks, 1e-4 for jumps.

    Args:
        sample: f at the nodes of a quadrature (`quadrature.sample`).
    """

    def __init__(self, sample: Sample):
        z, weights, values = sample
        self.mean_square = float(weights @ values**2)
        squares = np.zeros(_ORDER)
        before, now = np.zeros_like(z), np.ones_like(z)
        left = self.mean_square
        for k in range(_ORDER):
            squares[k] = ((weights * values) @ now) ** 2
            before, now = now, (z * now - math.sqrt(k) * before) / math.sqrt(k + 1)
            left -= squares[k]
            if not left > 1e-13 * self.mean_square:
                break
        self._squares = squares[: k + 1]
        self._left = max(left, 0.0) if k + 1 == _ORDER else 0.0
        late = squares[_ORDER // 2 :]
        # a_k^2 ~ k^-(1 + decay): the rest after k terms falls as k^-decay, 1/2 for a jump and 3/2 for a kink.
        self._decay = max(math.log2(1 + late.sum() / self._left), 0.5) if self._left else 1.0
        self._odd = float(late[1::2].sum() / late.sum()) if self._left else 0.0

    def __call__(self, correlation: np.ndarray) -> np.ndarray:
        """E[f(u) f(v)] at correlations from -1 to 1."""
        correlation = np.asarray(correlation, "float64")
        total = polyval(correlation, self._squares)
        if self._left:
            with np.errstate(divide="ignore"):
                fall = np.log(np.abs(correlation))[..., None] * _ORDER
            # Sum over k > K of k^-(1 + decay) c^k, as an integral over w = (k / K)^-decay from 0 to 1.
            w = (1 + _NODES) / 2
            rest = self._left * np.exp(fall * w ** (-1 / self._decay)) @ (_WEIGHTS / 2)
            total = total + np.where(correlation < 0, 1 - 2 * self._odd, 1) * rest
        return total
