r"""Mean-field theory of wide random networks: what depth does to signals and to how alike two of them are.

A layer with weights of variance sigma_w^2 / fan_in and biases of variance sigma_b^2 maps the pre-activations'
variance q to

    F(q) = sigma_w^2 E[f(sqrt(q) z)^2] + sigma_b^2,    z ~ N(0, 1)

and multiplies the gradient's variance by chi_1 = sigma_w^2 E[f'(sqrt(q) z)^2].
"""

from __future__ import annotations

import numpy as np

from keras_initkit.theory.activations import Activation, resolve
from keras_initkit.theory.correlation import HermiteSeries
from keras_initkit.theory.quadrature import sample


def covariance(activation: Activation, correlation: np.ndarray, variance: float = 1.0) -> np.ndarray:
    """E[f(u) f(v)] for Gaussians u and v of mean 0 that have the same variance.

    Args:
        activation: as in `gain`.
        correlation: of u and v, from -1 to 1; an array or a number.
        variance: of u and of v.

    Returns:
        An array of the correlation's shape, exact to 1e-6 of E[f^2] (1e-4 where f jumps).

    Raises:
        ValueError: for a correlation out of range.

    >>> covariance("relu", [0.0, 0.5, 1.0]).round(4)  # 1 / (2 pi) at 0, where relu's mean is squared
    array([0.1592, 0.3045, 0.5   ])

    Source: Cho and Saul 2009 (relu); Poole et al. 2016, the correlation map.
    """
    correlation = np.asarray(correlation, "float64")
    if not (np.abs(correlation) <= 1 + 1e-9).all():
        raise ValueError(f"correlation: got {correlation}, expected numbers from -1 to 1.")
    return HermiteSeries(sample(resolve(activation), variance=variance))(np.clip(correlation, -1, 1))
