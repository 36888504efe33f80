"""What the initializers of keras_initkit draw, from their arguments and published formulas alone."""

from __future__ import annotations

import math
from typing import Any

from scipy import stats

from keras_initkit import initializers
from keras_initkit.testing.expectations import Declared, Shape, expect
from keras_initkit.theory.fans import compute_fans
from keras_initkit.theory.gains import gain


def centred(distribution: str, variance: float) -> Any:
    """The frozen distribution of mean 0 and this variance under its Keras name.

    >>> [round(float(centred(name, 4.0).std()), 9) for name in ("uniform", "truncated_normal", "untruncated_normal")]
    [2.0, 2.0, 2.0]
    """
    stddev = math.sqrt(variance)
    if distribution == "uniform":
        return stats.uniform(-math.sqrt(3) * stddev, 2 * math.sqrt(3) * stddev)
    if distribution == "truncated_normal":
        return stats.truncnorm(-2, 2, scale=stddev / stats.truncnorm(-2, 2).std())
    return stats.norm(scale=stddev)


def mode_fan(mode: str, fan_in: float, fan_out: float) -> float:
    """The fan that a mode stands for, 1 at least."""
    return max(1.0, {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode])


def scaled(initializer: Any, shape: Shape, scale: float, mode: str, distribution: str) -> Declared:
    """Variance `scale / fan` with the fans of the initializer's `in_axes` and `out_axes`."""
    axes = () if initializer.in_axes is None else (initializer.in_axes, initializer.out_axes)
    return centred(distribution, scale / mode_fan(mode, *compute_fans(shape, *axes)))


@expect(initializers.ActivationScaling)
def activation_scaling(initializer: Any, shape: Shape) -> Declared:
    """He's rule with the activation's gain."""
    factor = gain(initializer.activation, initializer.direction)
    return scaled(initializer, shape, factor**2, initializer.mode, initializer.distribution)


@expect(initializers.StandardUniform)
def standard_uniform(initializer: Any, shape: Shape) -> Declared:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    return scaled(initializer, shape, 1 / 3, "fan_in", "uniform")
