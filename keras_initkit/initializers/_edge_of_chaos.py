"""Kernels and biases on the edge of chaos, where gradients neither vanish nor explode with depth."""

from __future__ import annotations

from typing import Any

import keras

from keras_initkit.initializers._base import ShapedInitializer
from keras_initkit.initializers._core import PACKAGE, Distribution, ScaledVariance, checked_seed, draw, restored
from keras_initkit.theory._activations import Activation
from keras_initkit.theory._critical import critical_point
from keras_initkit.theory._fans import Axes


@keras.saving.register_keras_serializable(PACKAGE)
class Critical(ScaledVariance):
    r"""Scales the variance to $\sigma_w^2 / n_{in}$, on the edge of chaos: gradients neither vanish nor explode.

    At this $\sigma_w$, $\chi_1 = \sigma_w^2 E[f'(\sqrt{q} z)^2] = 1$, and layers of these kernels and of biases of
    standard deviation $\sigma_b$ keep the pre-activations' variance at $q$ (`keras_initkit.theory.critical_point`).
    The biases are part of it: give the layer `CriticalBias` with the same arguments. With $\sigma_b = 0$, the
    default here, these are Keras' zero biases.

    Args:
        activation: String, callable or None. The activation of the network's layers, as in `ActivationScaling`.
        sigma_b: Float or None. Standard deviation of the biases. A larger one means a larger q.
        q: Float or None. Variance of the pre-activations, in place of `sigma_b`.
        distribution, in_axes, out_axes, seed: As in `ActivationScaling`.

    Raises:
        ValueError: If both `sigma_b` and `q` are given, or the activation has no such critical point.

    Example:

    >>> from keras_initkit.initializers import Critical, CriticalBias
    >>> layer = keras.layers.Dense(
    ...     100, "tanh", kernel_initializer=Critical("tanh", q=1.0), bias_initializer=CriticalBias("tanh", q=1.0))
    >>> round(Critical("tanh", q=1.0).variance((100.0, 100.0)) * 100, 4)  # sigma_w^2
    2.1533

    References:
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos",
          https://arxiv.org/abs/1606.05340
        - Samuel S. Schoenholz et al. (2017), "Deep information propagation", https://arxiv.org/abs/1611.01232
        - Jeffrey Pennington et al. (2017), "Resurrecting the sigmoid in deep learning through dynamical isometry",
          https://arxiv.org/abs/1711.04735
    """

    def __init__(
        self,
        activation: Activation = "relu",
        sigma_b: float | None = None,
        q: float | None = None,
        distribution: Distribution = "untruncated_normal",
        in_axes: Axes | None = None,
        out_axes: Axes | None = None,
        seed: Any = None,
    ):
        activation = restored(activation)
        scale = critical_point(activation, sigma_b, q).sigma_w ** 2
        self.activation = activation
        self.sigma_b, self.q = (None if each is None else float(each) for each in (sigma_b, q))
        super().__init__(scale, "fan_in", distribution, in_axes, out_axes, seed)


@keras.saving.register_keras_serializable(PACKAGE)
class CriticalBias(ShapedInitializer):
    r"""Draws biases from $N(0, \sigma_b^2)$, to go with a `Critical` kernel of the same arguments.

    Args:
        activation, sigma_b, q, seed: As in `Critical`. By default, and for activations that scale with their input
            (relu), $\sigma_b$ is 0.

    Raises:
        ValueError: As in `Critical`.

    Example:

    >>> from keras_initkit.initializers import CriticalBias
    >>> bias = CriticalBias("tanh", q=1.0, seed=0)((10_000,))
    >>> round(float(keras.ops.std(bias)), 2)
    0.39

    References:
        - Samuel S. Schoenholz et al. (2017), "Deep information propagation", https://arxiv.org/abs/1611.01232
    """

    ranks = range(1, 17)
    meaning = "a bias (..., units)"

    def __init__(
        self, activation: Activation = "relu", sigma_b: float | None = None, q: float | None = None, seed: Any = None
    ):
        activation = restored(activation)
        self.variance = critical_point(activation, sigma_b, q).sigma_b ** 2
        self.activation = activation
        self.sigma_b, self.q = (None if each is None else float(each) for each in (sigma_b, q))
        self.seed = checked_seed(seed)

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        return draw(shape, self.variance, "untruncated_normal", dtype, self.seed)
