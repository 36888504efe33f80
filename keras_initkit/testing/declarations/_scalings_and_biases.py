"""What our scaling family and our biases draw, from their arguments and published formulas alone."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from scipy import special, stats

from keras_initkit import initializers
from keras_initkit.testing import _predicates
from keras_initkit.testing.declarations._declare import Declared, Shape, expect
from keras_initkit.theory._activations import resolve
from keras_initkit.theory._critical import critical_point
from keras_initkit.theory._fans import compute_fans
from keras_initkit.theory._gains import expectation, gain


def centered(distribution: str, variance: float) -> Any:
    """The frozen distribution of mean 0 and this variance under its Keras name.

    Example:

    >>> [round(float(centered(name, 4.0).std()), 9) for name in ("uniform", "truncated_normal", "untruncated_normal")]
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


def fans(initializer: Any, shape: Shape) -> tuple[float, float]:
    """Fans of the initializer's `in_axes` and `out_axes`, each 1 at least."""
    axes = () if initializer.in_axes is None else (initializer.in_axes, initializer.out_axes)
    fan_in, fan_out = compute_fans(shape, *axes)
    return max(1.0, fan_in), max(1.0, fan_out)


def with_axes(initializer: Any, shape: Shape) -> Shape:
    """The shape with axes of size 1 before it, if it has too few for the axes that the initializer names."""
    named = [getattr(initializer, name, None) for name in ("in_axes", "out_axes")]
    axes = [axis for each in named if each is not None for axis in ([each] if isinstance(each, int) else each)]
    rank = max([axis + 1 if axis >= 0 else -axis for axis in axes], default=0)
    return (1,) * (max(rank, len(axes)) - len(shape)) + shape


@expect(initializers.ActivationScaling, fit=with_axes)
def activation_scaling(initializer: Any, shape: Shape) -> Declared:
    """He's rule with the activation's gain."""
    directions = [initializer.direction]
    if initializer.direction == "compromise":
        directions = ["forward", "backward"]
    mean_square = float(np.mean([gain(initializer.activation, direction) ** -2 for direction in directions]))
    fan = mode_fan(initializer.mode, *fans(initializer, shape))
    return centered(initializer.distribution, 1 / (mean_square * fan))


@expect(initializers.StandardUniform, fit=with_axes)
def standard_uniform(initializer: Any, shape: Shape) -> Declared:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    limit = fans(initializer, shape)[0] ** -0.5
    return stats.uniform(-limit, 2 * limit)


@expect(initializers.RandomWalk, fit=with_axes)
def random_walk(initializer: Any, shape: Shape) -> Declared:
    """N(0, g^2 / n), eq. 17 and 18 of the paper."""
    n = fans(initializer, shape)[0]
    gains = {"linear": math.exp(1 / (2 * n)), "relu": math.sqrt(2) * math.exp(1.2 / (max(n, 6) - 2.4))}
    return stats.norm(scale=gains[initializer.activation] / math.sqrt(n))


@expect(initializers.DepthScaling, fit=with_axes)
def depth_scaling(initializer: Any, shape: Shape) -> Declared:
    """Standard deviations of a residual stream of width d under n blocks."""
    d, n = initializer.width or fans(initializer, shape)[0], initializer.n_layers
    stddev = {"residual": 1 / math.sqrt(2 * n * d), "small": 1 / math.sqrt(d), "wang": 2 / (n * math.sqrt(d))}
    return centered(initializer.distribution, stddev[initializer.rule] ** 2)


@functools.lru_cache(maxsize=64)  # many quadratures, and every check asks
def edge_of_chaos(activation: Any, sigma_b: float | None, q: float | None) -> tuple[float, float]:
    """Variances of weights and biases with chi_1 = 1 and F(q) = q, at the q that theory settles at."""
    function, q = resolve(activation), max(critical_point(activation, sigma_b, q).q, 1e-10)
    weights = 1 / expectation(function, derivative=True, variance=q)
    return weights, q - weights * expectation(function, variance=q)


@expect(initializers.Critical, fit=with_axes)
def critical(initializer: Any, shape: Shape) -> Declared:
    """sigma_w^2 / fan_in."""
    weights, _ = edge_of_chaos(initializer.activation, initializer.sigma_b, initializer.q)
    return centered(initializer.distribution, weights / fans(initializer, shape)[0])


@expect(initializers.Siren, fit=with_axes)
def siren(initializer: Any, shape: Shape) -> Declared:
    """U(-1/n, 1/n) in the first layer, U(-sqrt(6/n)/omega_0, sqrt(6/n)/omega_0) in the others."""
    n = fans(initializer, shape)[0]
    limit = 1 / n if initializer.first else math.sqrt(6 / n) / initializer.omega_0
    return stats.uniform(-limit, 2 * limit)


@expect(initializers.CriticalBias, shapes=((2**17,), (2, 2**16)), small=(24,), rejects=((),))
def critical_bias(initializer: Any, shape: Shape) -> Declared:
    """N(0, sigma_b^2); 0, where that is rounding."""
    _, variance = edge_of_chaos(initializer.activation, initializer.sigma_b, initializer.q)
    return stats.norm(scale=math.sqrt(variance)) if variance > 1e-5 else _predicates.Equals(0.0)


def _one_for_each(initializer: Any, shape: Shape) -> Shape:
    return (*shape[:-1], np.size(initializer.probability)) if np.ndim(initializer.probability) else shape


@expect(
    initializers.PriorProbabilityBias,
    shapes=((64,), (5, 8)),
    small=(4,),
    rejects=((),),
    zero_sized=((0, 4),),
    fit=_one_for_each,
)
def prior_probability_bias(initializer: Any, shape: Shape) -> Declared:
    """The logit of the probability, or the logarithm of each class's share."""
    p = np.asarray(initializer.probability, "float64")
    return _predicates.Equals(np.log(p / p.sum()) if initializer.activation == "softmax" else special.logit(p))


# Four gates.
LSTM_REJECTS = ((), (6,), (4, 4))


@expect(initializers.UnitForgetGateBias, shapes=((512,), (4,)), small=(24,), rejects=LSTM_REJECTS)
def unit_forget_gate_bias(initializer: Any, shape: Shape) -> Declared:
    """The value for the second of four gates, 0 for the others."""
    units = np.arange(shape[0])
    return _predicates.Equals(np.where(units // max(1, shape[0] // 4) == 1, initializer.value, 0.0))


@expect(initializers.ChronoBias, shapes=((2**19,), (2**17,)), small=(24,), rejects=LSTM_REJECTS)
def chrono_bias(initializer: Any, shape: Shape) -> Declared:
    """log U(1, max_steps - 1) for the forget gate, its negative for the input gate, 0 for the others."""
    steps = stats.uniform(1, initializer.max_steps - 2)

    def accepts(values: np.ndarray) -> None:
        entrance, forget, cell, exit_ = np.split(values, 4)
        if (entrance != -forget).any() or cell.any() or exit_.any():
            raise AssertionError("got gates other than [-b, b, 0, 0]")
        low, high = np.exp(forget).min(), np.exp(forget).max()
        # exp makes a float32 rounding of b one of b times the steps.
        if not (low >= 1 - 1e-6 and high <= (initializer.max_steps - 1) * (1 + 1e-5)):
            raise AssertionError(f"got spans from {low:.6g} to {high:.6g}, expected 1 to {initializer.max_steps - 1:g}")
        _predicates.assert_drawn(np.exp(forget), steps)

    return accepts
