"""Biases: by class frequency, and for the gates of an LSTM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_initkit._checks import checked_number, checked_option
from keras_initkit.initializers._base import ShapedInitializer
from keras_initkit.initializers._core import PACKAGE, checked_seed, fresh_seed


class _GatesBias(ShapedInitializer):
    ranks = (1,)
    meaning = "the bias (4 * units,) of an LSTM or ConvLSTM"

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape[0] % 4:
            raise ValueError(
                f"shape: got {shape}, expected (4 * units,): the gates of an LSTM are input, forget, cell and "
                "output. Pass unit_forget_bias=False to the layer, or it asks for some of the gates alone."
            )


@keras.saving.register_keras_serializable(PACKAGE)
class PriorProbabilityBias(ShapedInitializer):
    r"""Sets the bias of an output layer to predict the class frequencies before training.

    .. math::

        b_\text{sigmoid} = \log(p / (1 - p)), \qquad b_{\text{softmax}, k} = \log(p_k / \sum_j p_j)

    Without it, the first steps on imbalanced labels only learn the bias, from a loss that frequent classes dominate.

    Args:
        probability: Float or sequence of floats. Probability of the positive label, for all units or for each (last
            axis). Under softmax always a sequence, and counts serve as well as probabilities: they are divided by
            their sum.
        activation: String. The activation after the bias: `"sigmoid"` or `"softmax"`.

    Raises:
        ValueError: If a probability is outside (0, 1), or not positive under softmax; when called, if the shape has
            another number of units.

    Example:

    >>> from keras_initkit.initializers import PriorProbabilityBias
    >>> [round(float(b), 3) for b in PriorProbabilityBias(0.01)((2,))]
    [-4.595, -4.595]
    >>> bias = PriorProbabilityBias([900, 90, 10], "softmax")((3,))
    >>> [round(float(p), 3) for p in keras.ops.softmax(bias)]
    [0.9, 0.09, 0.01]

    References:
        - Tsung-Yi Lin et al. (2017), "Focal loss for dense object detection", section 3.3, for the sigmoid,
          https://arxiv.org/abs/1708.02002
    """

    ranks = range(1, 17)
    meaning = "a bias (..., units)"

    def __init__(
        self, probability: float | Sequence[float] = 0.01, activation: Literal["sigmoid", "softmax"] = "sigmoid"
    ):
        self.activation = checked_option("activation", activation, ("sigmoid", "softmax"))
        if isinstance(probability, np.ndarray):
            probability = probability.tolist()
        several = isinstance(probability, Sequence) and not isinstance(probability, str)
        given: list[Any] = list(probability) if several else [probability]  # type: ignore[arg-type]
        if activation == "softmax" and not (several and len(given) > 1):
            raise ValueError(
                f"probability: got {probability!r} under softmax, expected a sequence of two or more probabilities "
                "or counts, one for each class."
            )
        below = math.inf if activation == "softmax" else 1
        values = [checked_number("probability", p, 0, below) for p in given]
        self.probability = values if several else values[0]

    def _check(self, shape: tuple[int, ...]) -> None:
        if isinstance(self.probability, list) and shape[-1] != len(self.probability):
            count = len(self.probability)
            raise ValueError(f"shape: got {shape} with {count} probabilities, expected {count} units in the last axis.")

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        p = np.asarray(self.probability, "float64")
        bias = np.log(p / p.sum()) if self.activation == "softmax" else np.log(p) - np.log1p(-p)
        return keras.ops.convert_to_tensor(np.broadcast_to(bias, shape).copy(), dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class UnitForgetGateBias(_GatesBias):
    """Sets the forget gate's bias of an LSTM to a value and all others to zero: the memory is kept at first.

        b = [0, value, 0, 0]    for Keras' gates [input, forget, cell, output]

    Keras' LSTM does this with value 1 by `unit_forget_bias=True`, its default, which must be set to False for a
    bias initializer to be used unchanged.

    Args:
        value: Float. Bias of the forget gate, which keeps sigmoid(value) of its memory at each step.

    Raises:
        ValueError: If the value is no finite number; when called, if the shape is not (4 * units,).

    Example:

    >>> from keras_initkit.initializers import UnitForgetGateBias
    >>> layer = keras.layers.LSTM(8, bias_initializer=UnitForgetGateBias(2.0), unit_forget_bias=False)
    >>> [float(b) for b in UnitForgetGateBias()((8,))]
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]

    References:
        - Rafal Jozefowicz et al. (2015), "An empirical exploration of recurrent network architectures",
          https://proceedings.mlr.press/v37/jozefowicz15.html
        - Felix A. Gers et al. (2000), "Learning to forget: Continual prediction with LSTM",
          https://doi.org/10.1162/089976600300015015
    """

    def __init__(self, value: float = 1.0):
        self.value = checked_number("value", value)

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        gates = np.repeat([0.0, self.value, 0.0, 0.0], shape[0] // 4)
        return keras.ops.convert_to_tensor(gates, dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class ChronoBias(_GatesBias):
    r"""Draws the biases of an LSTM whose units remember for spans of all lengths up to that of the sequences.

    .. math::

        b_\text{forget} = \log u, \quad u \sim U(1, T - 1), \qquad b_\text{input} = -b_\text{forget}

    The other gates' biases are 0. A forget gate at `sigmoid(log(u))` keeps its memory for about $u$ steps. Needs
    `unit_forget_bias=False`, as `UnitForgetGateBias` does.

    Args:
        max_steps: Float. The longest span to remember, $T$, in steps: often the length of the sequences.
        seed: As in `ActivationScaling`.

    Raises:
        ValueError: If max_steps is 2 or less; when called, if the shape is not (4 * units,).

    Example:

    >>> from keras_initkit.initializers import ChronoBias
    >>> layer = keras.layers.LSTM(8, bias_initializer=ChronoBias(max_steps=784), unit_forget_bias=False)
    >>> bias = ChronoBias(max_steps=784, seed=0)((32,))
    >>> float(keras.ops.max(bias)) < 6.67, float(keras.ops.max(keras.ops.abs(bias[:8] + bias[8:16])))  # log(783)
    (True, 0.0)

    References:
        - Corentin Tallec and Yann Ollivier (2018), "Can recurrent neural networks warp time?",
          https://arxiv.org/abs/1804.11188
    """

    def __init__(self, max_steps: float = 100, seed: Any = None):
        self.max_steps = checked_number("max_steps", max_steps, above=2)
        self.seed = checked_seed(seed)

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        units = shape[0] // 4
        steps = keras.random.uniform((units,), 1.0, self.max_steps - 1.0, dtype=dtype, seed=fresh_seed(self.seed))
        forget = keras.ops.log(steps)
        return keras.ops.concatenate([-forget, forget, keras.ops.zeros((2 * units,), dtype)])
