"""Initializers that scale a kernel's variance by its fans: thin names over `ScaledVariance`."""

from __future__ import annotations

from typing import Any

import keras

from keras_initkit.initializers.core import PACKAGE, ScaledVariance
from keras_initkit.theory.activations import Activation
from keras_initkit.theory.fans import Axes
from keras_initkit.theory.gains import gain


@keras.saving.register_keras_serializable(PACKAGE)
class ActivationScaling(ScaledVariance):
    """Variance `gain(activation)^2 / fan`: He's rule for any activation.

    `ActivationScaling("relu")` is He et al.'s 2 / fan_in (`he_normal`), `ActivationScaling("linear")` is
    LeCun's 1 / fan_in, and every other activation gets the factor that keeps its signal's second moment.

    Args:
        activation: the activation that follows the kernel: a Keras name, a `keras.activations` function, or
            any elementwise callable.
        mode: `"fan_in"` keeps the signal's scale, `"fan_out"` the gradient's, `"fan_avg"` is between.
        distribution: `"truncated_normal"` (at two standard deviations, corrected for it),
            `"untruncated_normal"` or `"uniform"`.
        direction: which gain: `"forward"` for the signal, `"backward"` for the gradient.
        in_axes: axis or axes of the kernel that the layer sums over; with `out_axes`, or neither. The axes
            that are named by neither multiply both fans.
        out_axes: axis or axes of the units that the layer puts out.
        seed: an integer (every call draws the same values), a `keras.random.SeedGenerator`, or `None`: every
            call draws values of its own.

    Raises:
        ValueError: for an argument out of range, an unknown activation, or one that has no gain (softmax).

    >>> from keras_initkit.initializers import ActivationScaling
    >>> kernel = ActivationScaling("tanh", seed=0)((2048, 128))
    >>> round(float(keras.ops.std(kernel)) * 2048**0.5, 1)  # the gain of tanh is 1.5925
    1.6

    Source: He et al. 2015, eq. 10 and 14; Glorot and Bengio 2010, eq. 12 for the modes.
    """

    def __init__(
        self,
        activation: Activation = "relu",
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        direction: str = "forward",
        in_axes: Axes | None = None,
        out_axes: Axes | None = None,
        seed: Any = None,
    ):
        if isinstance(activation, dict):  # from a configuration
            activation = keras.saving.deserialize_keras_object(activation)
        self.activation, self.direction = activation, direction
        super().__init__(gain(activation, direction) ** 2, mode, distribution, in_axes, out_axes, seed)


@keras.saving.register_keras_serializable(PACKAGE)
class StandardUniform(ScaledVariance):
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), of variance 1 / (3 fan_in).

    The "standard" initialization of Glorot and Bengio 2010 (eq. 1), the heuristic that theirs replaced; also
    what PyTorch's Linear and Conv layers draw by default. A signal loses two thirds of its variance at each
    linear layer.

    Args:
        in_axes, out_axes, seed: as in `ActivationScaling`.

    >>> from keras_initkit.initializers import StandardUniform
    >>> kernel = StandardUniform(seed=0)((2500, 128))
    >>> round(float(keras.ops.max(kernel)), 4)  # 1 / sqrt(2500)
    0.02
    """

    def __init__(self, in_axes: Axes | None = None, out_axes: Axes | None = None, seed: Any = None):
        super().__init__(1 / 3, "fan_in", "uniform", in_axes, out_axes, seed)
