r"""The gain of an activation: what a kernel's scale must make up for.

Signal z ~ N(0, 1) that passes an activation f keeps its second moment if the next kernel has variance
g^2 / fan_in with

    forward:   g = E[f(z)^2] ^ -1/2        (He et al. 2015, eq. 10, for any f)
    backward:  g = E[f'(z)^2] ^ -1/2       (He et al. 2015, eq. 14; chi_1 = 1 of Poole et al. 2016 at q* = 1)
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from scipy.special import ndtr

from keras_initkit._checks import checked_option
from keras_initkit.theory._activations import Activation, activation_range, evaluate, keras_name, resolve
from keras_initkit.theory._quadrature import sample

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


_GELU = 1 / (2 * math.pi * math.sqrt(3))  # the integral of the cubed normal density
# E[f(z)^2] and E[f'(z)^2] where they have a closed form.
_SECOND_MOMENTS: dict[str | None, tuple[float, float]] = {
    "linear": (1, 1),
    "relu": (1 / 2, 1 / 2),
    "leaky_relu": ((1 + 0.2**2) / 2, (1 + 0.2**2) / 2),  # Keras' default slope
    "elu": (
        1 + math.e**2 * ndtr(-2) - 2 * math.sqrt(math.e) * ndtr(-1),
        1 / 2 + math.e**2 * ndtr(-2),
    ),
    "exponential": (math.e**2, math.e**2),
    "gelu": (1 / 3 + _GELU, 1 / 3 + 4 / 3 * _GELU),  # z times the normal distribution function
}


def gain(activation: Activation, direction: Direction = "forward") -> float:
    r"""Returns the gain of `activation` for unit-variance Gaussian pre-activations.

    .. math::

        g_\text{forward} = E[f(z)^2]^{-1/2}, \qquad g_\text{backward} = E[f'(z)^2]^{-1/2}, \quad z \sim N(0, 1)

    Args:
        activation: String, callable or None. The name of a Keras activation, a `keras.activations` function, an
            activation layer (which is left as it is), or any callable that maps a tensor element by element. None is
            linear.
        direction: String. `"forward"` keeps the second moment of the signal, `"backward"` that of its gradient.

    Returns:
        Float. The gain: exact where a closed form is known, else by quadrature.

    Raises:
        ValueError: If the name or the direction is unknown, if the function is not elementwise (softmax), or if it has
            no gain, since the mean square of its values or slopes is zero or infinite.

    Example:

    >>> round(gain("relu"), 4), round(gain("tanh"), 4), round(gain("gelu", "backward"), 4)
    (1.4142, 1.5925, 1.4811)

    In single precision, which is all that JAX has unless `jax_enable_x64` is set, a backward gain of an activation
    with a kink off the multiples of 1/2 is good to four digits; all others, and double precision, to six or more.

    PyTorch's `calculate_gain` differs where its values were set by convention: tanh 5/3, sigmoid 1, selu 3/4.

    References:
        - Kaiming He et al. (2015), "Delving deep into rectifiers", equations 10 and 14, for relu,
          https://arxiv.org/abs/1502.01852
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos", equation
          6: a backward gain means $\chi_1 = 1$ at $q = 1$, https://arxiv.org/abs/1606.05340
    """
    checked_option("direction", direction, DIRECTIONS)
    function = resolve(activation)
    known = keras_name(function)
    if known in _SECOND_MOMENTS:
        mean_square = _SECOND_MOMENTS[known][DIRECTIONS.index(direction)]
    else:
        mean_square = expectation(function, derivative=direction == "backward")
    if not (math.isfinite(mean_square) and mean_square > 0):
        what = "the mean square of its derivative" if direction == "backward" else "its mean square"
        raise ValueError(
            f"activation: {known or function!r} has no {direction} gain, {what} is {mean_square}. "
            "Expected an activation that lets some signal through, and whose mean square is finite."
        )
    return 1 / math.sqrt(mean_square)


def direction_for(activation: Activation) -> Direction:
    """Returns the direction whose gain a kernel in front of `activation` should have.

    Forward, as in He et al. 2015, but backward for bounded activations whose mean outweighs their variance: sigmoids,
    where the mean makes 85 % of the second moment. It is the same for all examples; keeping it loses their differences
    and the gradient, by 1.85 / 4.72 a layer, the forward by the backward gain. Glorot and Bengio 2010 ask there for
    four times tanh's deviation, $1 / f'(0)$. An unbounded one (softplus) would explode with depth by its backward gain.

    Example:

    >>> direction_for("sigmoid"), direction_for("tanh"), direction_for("softplus")
    ('backward', 'forward', 'forward')
    """
    low, high = activation_range(activation)
    if not math.isfinite(high - low):
        return "forward"
    return "backward" if 2 * expectation(activation, power=1) ** 2 > expectation(activation) else "forward"


def expectation(
    activation: Activation, power: int = 2, derivative: bool = False, mean: float = 0.0, variance: float = 1.0
) -> float:
    r"""Returns $E[f(x)^p]$, or $E[f'(x)^p]$, for $x \sim N(\mu, v)$, by quadrature.

    Args:
        activation: String, callable or None. The function f, as in `gain`.
        power: Positive integer. The exponent $p$.
        derivative: Boolean. Whether to average powers of f' in place of f.
        mean: Float. Mean $\mu$ of $x$.
        variance: Float. Variance $v$ of $x$. At 0, f is taken at the mean alone, and f' within a hundredth of it.

    Returns:
        Float. The expectation, to ten digits of $E[|f|^p]$ where values are computed in float64 and to six in
        float32; infinite where it diverges or f is NaN.

    Example:

    >>> round(expectation("relu", variance=4.0), 4)
    2.0
    >>> round(expectation("softplus", power=1, mean=1.0, variance=0.25), 4)
    1.3376
    """
    function = resolve(activation)
    if variance == 0:
        if not derivative:
            return float(evaluate(function, np.full(4, float(mean)))[0]) ** power
        variance = (1e-2 * mean) ** 2 or 1e-10  # so near that f is its tangent, so far that differences have digits
    _, weights, values = sample(function, mean, variance, derivative, power)
    return float(weights @ values**power)
