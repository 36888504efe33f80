"""Initializers that scale a kernel's variance by its fans: thin names over `ScaledVariance`."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras

from keras_initkit._checks import checked_count, checked_option
from keras_initkit.initializers._core import PACKAGE, Distribution, Mode, ScaledVariance, restored
from keras_initkit.theory._activations import Activation
from keras_initkit.theory._fans import Axes, Fans
from keras_initkit.theory._gains import DIRECTIONS, Direction, gain


@keras.saving.register_keras_serializable(PACKAGE)
class ActivationScaling(ScaledVariance):
    r"""Scales the variance by the activation's gain: He's rule for any activation.

    .. math::

        \operatorname{Var} W = \text{gain}(\text{activation})^2 / \text{fan}

    `ActivationScaling("relu")` is He et al.'s $2 / n_{in}$ (`he_normal`), `ActivationScaling("linear")` is
    LeCun's $1 / n_{in}$, and every other activation gets the factor that keeps its signal's second moment.

    Args:
        activation: String, callable or None. The activation after the kernel: the name of a Keras activation, a
            `keras.activations` function, or any elementwise callable. None is linear.
        mode: String. `"fan_in"` keeps the scale of the signal, `"fan_out"` that of the gradient, `"fan_avg"` is in
            between.
        distribution: String. `"truncated_normal"` (at two standard deviations, and corrected for the truncation),
            `"untruncated_normal"` or `"uniform"`.
        direction: String. `"forward"` takes the gain of the signal, `"backward"` that of the gradient,
            `"compromise"` the mean of the two second moments, $1 / \text{gain}^2 = (E[f(z)^2] + E[f'(z)^2]) / 2$, by
            analogy with Glorot's mean of the fans.
        in_axes: Integer or sequence of integers. Kernel axes that the layer sums over. Give it together with
            `out_axes`; by default the last two axes are inputs and outputs. All other axes multiply both fans.
        out_axes: Integer or sequence of integers. Kernel axes of the layer's output units.
        seed: Integer, `keras.random.SeedGenerator` or None. With an integer every call draws the same values, with
            a generator or None each call draws others.

    Raises:
        ValueError: If an argument is out of range, the activation is unknown or it has no gain (softmax).

    Example:

    >>> from keras_initkit.initializers import ActivationScaling
    >>> kernel = ActivationScaling("tanh", seed=0)((2048, 128))
    >>> round(float(keras.ops.std(kernel)) * 2048**0.5, 1)  # the gain of tanh is 1.5925
    1.6

    References:
        - Kaiming He et al. (2015), "Delving deep into rectifiers", equations 10 and 14,
          https://arxiv.org/abs/1502.01852
        - Xavier Glorot and Yoshua Bengio (2010), "Understanding the difficulty of training deep feedforward neural
          networks", equation 12 for the modes, https://proceedings.mlr.press/v9/glorot10a.html
    """

    def __init__(
        self,
        activation: Activation = "relu",
        mode: Mode = "fan_in",
        distribution: Distribution = "truncated_normal",
        direction: Direction | Literal["compromise"] = "forward",
        in_axes: Axes | None = None,
        out_axes: Axes | None = None,
        seed: Any = None,
    ):
        activation = restored(activation)
        self.activation = activation
        self.direction = checked_option("direction", direction, (*DIRECTIONS, "compromise"))
        if direction == "compromise":
            scale = 2 / sum(gain(activation, each) ** -2 for each in DIRECTIONS)
        else:
            scale = gain(activation, direction) ** 2
        super().__init__(scale, mode, distribution, in_axes, out_axes, seed)


@keras.saving.register_keras_serializable(PACKAGE)
class StandardUniform(ScaledVariance):
    r"""Draws from $U(-1/\sqrt{n_{in}}, 1/\sqrt{n_{in}})$, of variance $1 / (3 n_{in})$.

    The "standard" initialization of Glorot and Bengio 2010 (eq. 1), the heuristic that theirs replaced; also
    what PyTorch's Linear and Conv layers draw by default. A signal loses two thirds of its variance at each
    linear layer.

    Args:
        in_axes, out_axes, seed: As in `ActivationScaling`.

    Example:

    >>> from keras_initkit.initializers import StandardUniform
    >>> kernel = StandardUniform(seed=0)((2500, 128))
    >>> round(float(keras.ops.max(kernel)), 4)  # 1 / sqrt(2500)
    0.02

    References:
        - Xavier Glorot and Yoshua Bengio (2010), "Understanding the difficulty of training deep feedforward neural
          networks", equation 1, https://proceedings.mlr.press/v9/glorot10a.html
    """

    def __init__(self, in_axes: Axes | None = None, out_axes: Axes | None = None, seed: Any = None):
        super().__init__(1 / 3, "fan_in", "uniform", in_axes, out_axes, seed)


@keras.saving.register_keras_serializable(PACKAGE)
class RandomWalk(ScaledVariance):
    r"""Draws from $N(0, g^2 / n_{in})$ with the $g$ that keeps a gradient's log-norm from drifting with depth.

    .. math::

        g_\text{linear} = \exp(1 / (2 n_{in})), \qquad g_\text{relu} = \sqrt{2} \exp(1.2 / (\max(n_{in}, 6) - 2.4))

    He's rule keeps the mean square norm; the logarithm of a finite layer's norm then falls by about $1 / (2 n_{in})$
    (linear) or $1.2 / n_{in}$ (relu) at each layer, which hundreds of narrow layers add up.

    Args:
        activation: String. `"relu"` or `"linear"`: those with a known correction.
        in_axes, out_axes, seed: As in `ActivationScaling`.

    Raises:
        ValueError: If the activation is another one.

    Example:

    >>> from keras_initkit.initializers import RandomWalk
    >>> round(RandomWalk("relu").variance((100.0, 100.0)) * 100, 4)  # 2 exp(2.4 / 97.6)
    2.0498

    References:
        - David Sussillo and L. F. Abbott (2014), "Random walk initialization for training very deep feedforward
          networks", https://arxiv.org/abs/1412.6558
    """

    def __init__(
        self,
        activation: Literal["relu", "linear"] = "relu",
        in_axes: Axes | None = None,
        out_axes: Axes | None = None,
        seed: Any = None,
    ):
        self.activation = checked_option("activation", activation, ("relu", "linear"))
        scale = 2.0 if activation == "relu" else 1.0
        super().__init__(scale, "fan_in", "untruncated_normal", in_axes, out_axes, seed)

    def variance(self, fans: Fans) -> float:
        """Returns He's variance with the correction for a finite width."""
        width = max(fans[0], 1.0)
        drift = 1.2 / (max(width, 6.0) - 2.4) if self.activation == "relu" else 0.5 / width
        return super().variance(fans) * math.exp(2 * drift)


@keras.saving.register_keras_serializable(PACKAGE)
class DepthScaling(ScaledVariance):
    r"""Scales the kernel of a layer that writes into a residual stream down with the number of such layers.

    .. math::

        s_\text{residual} = 1 / \sqrt{2 n d}, \quad s_\text{small} = 1 / \sqrt{d}, \quad s_\text{wang} = 2 / (n\sqrt{d})

    are the standard deviations with $n$ blocks of two residual branches each (attention and MLP) and width $d$. Under
    `"residual"`, $2 n$ kernels that read units of variance one add $2 n / (2 n) = 1$ to the stream's variance, whatever
    the depth; under `"wang"`, $8 / n$. `"small"` is for the kernels that read the stream.

    Args:
        n_layers: Integer. Number of blocks, $n$.
        rule: String. `"residual"`, `"small"` (whatever the depth) or `"wang"`.
        width: Integer or None. Width $d$ of the stream; None takes each kernel's fan-in. A constant 0.02 is
            `width=2500`.
        distribution: String. As in `ActivationScaling`.
        in_axes, out_axes, seed: As in `ActivationScaling`.

    Raises:
        ValueError: If the rule is unknown, or the number of layers or the width is below 1.

    Example:

    >>> from keras_initkit.initializers import DepthScaling
    >>> DepthScaling(n_layers=8, seed=0).variance((64.0, 64.0)) ** -0.5  # sqrt(2 * 8 * 64)
    32.0

    References:
        - Alec Radford et al. (2019), "Language models are unsupervised multitask learners", section 2.3, for
          `"residual"`,
          https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
        - Sid Black et al. (2022), "GPT-NeoX-20B: An open-source autoregressive language model", for `"wang"`,
          https://arxiv.org/abs/2204.06745
        - Toan Q. Nguyen and Julian Salazar (2019), "Transformers without tears", whose SmallInit has $2 / (5 d)$
          where `"small"` has LeCun's $1 / d$, https://arxiv.org/abs/1910.05895
    """

    def __init__(
        self,
        n_layers: int = 12,
        rule: Literal["residual", "small", "wang"] = "residual",
        width: int | None = None,
        distribution: Distribution = "untruncated_normal",
        in_axes: Axes | None = None,
        out_axes: Axes | None = None,
        seed: Any = None,
    ):
        self.n_layers = checked_count("n_layers", n_layers)
        self.rule = checked_option("rule", rule, ("residual", "small", "wang"))
        self.width = width if width is None else checked_count("width", width)
        scale = {"residual": 1 / (2 * self.n_layers), "small": 1.0, "wang": 4 / self.n_layers**2}[rule]
        super().__init__(scale, "fan_in", distribution, in_axes, out_axes, seed)

    def variance(self, fans: Fans) -> float:
        """Returns the rule's variance for the stream's width, or for this fan-in if no width is given."""
        return super().variance(fans) if self.width is None else self.scale / self.width
