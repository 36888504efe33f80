"""Kernels that keep the norm of a signal: orthogonal matrices and orthogonal convolutions."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_initkit._checks import checked_axes, checked_count, checked_number, checked_option
from keras_initkit.initializers._base import CONVOLUTION, ShapedInitializer, at_center
from keras_initkit.initializers._core import PACKAGE, checked_seed, draw, restored
from keras_initkit.initializers._haar import haar, haar_columns
from keras_initkit.theory._activations import Activation
from keras_initkit.theory._fans import Axes
from keras_initkit.theory._gains import DIRECTIONS, Direction, gain


@keras.saving.register_keras_serializable(PACKAGE)
class ScaledOrthogonal(ShapedInitializer):
    r"""Draws an orthogonal kernel, times the gain of the activation after it.

    .. math::

        W = \text{gain}(\text{activation}) \, Q, \qquad Q^T Q = I \text{ or } Q Q^T = I \text{, as its shape allows}

    $Q$ is uniform (Haar) among these. Keras' `Orthogonal` fails in bfloat16 and is inexact in float16; this is
    computed in float32 at least, and cast.

    Args:
        activation: String, callable or None. The activation after the kernel, as in `ActivationScaling`.
        direction: String. `"forward"` takes the gain of the signal, `"backward"` that of the gradient.
        out_axes: Integer or sequence of integers. Axes of the layer's output units, which are the columns of the
            matrix; all others are its rows. For the query kernel (inputs, heads, size) of a MultiHeadAttention:
            `(1, 2)`.
        seed: As in `ActivationScaling`.

    Raises:
        ValueError: If the activation or the direction is unknown; when called, if the shape has rank 0 or 1 or lacks
            one of the axes.

    Example:

    >>> from keras_initkit.initializers import ScaledOrthogonal
    >>> kernel = ScaledOrthogonal("relu", seed=0)((64, 32))
    >>> gram = keras.ops.matmul(keras.ops.transpose(kernel), kernel)
    >>> round(float(gram[0, 0]), 3), abs(float(gram[0, 1])) < 1e-5  # the gain of relu is sqrt(2)
    (2.0, True)

    References:
        - Andrew M. Saxe et al. (2014), "Exact solutions to the nonlinear dynamics of learning in deep linear neural
          networks", https://arxiv.org/abs/1312.6120
        - Francesco Mezzadri (2007), "How to generate random matrices from the classical compact groups",
          https://arxiv.org/abs/math-ph/0609050
    """

    ranks = range(2, 17)
    meaning = "a kernel"

    def __init__(
        self, activation: Activation = "linear", direction: Direction = "forward", out_axes: Axes = -1, seed: Any = None
    ):
        self.activation, self.out_axes = restored(activation), checked_axes("out_axes", out_axes)
        self.direction = checked_option("direction", direction, DIRECTIONS)
        self.gain = gain(self.activation, direction)
        self.seed = checked_seed(seed)

    def _order(self, shape: tuple[int, ...]) -> tuple[list[int], int]:
        """The kernel's axes, inputs first, and how many of them are inputs."""
        axes = (self.out_axes,) if isinstance(self.out_axes, int) else self.out_axes
        out = [axis % len(shape) for axis in axes if -len(shape) <= axis < len(shape)]
        if len(set(out)) != len(axes) or not 0 < len(out) < len(shape):
            raise ValueError(
                f"out_axes: got {self.out_axes!r} for a kernel of shape {shape}, expected different axes from "
                f"{-len(shape)} to {len(shape) - 1}, and at least one axis left for the inputs."
            )
        return [axis for axis in range(len(shape)) if axis not in out] + out, len(shape) - len(out)

    def _check(self, shape: tuple[int, ...]) -> None:
        self._order(shape)

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        order, inputs = self._order(shape)
        sizes = [shape[axis] for axis in order]
        matrix = haar((math.prod(sizes[:inputs]), math.prod(sizes[inputs:])), self.gain, dtype, self.seed)
        kernel = keras.ops.reshape(matrix, sizes)
        places = [order.index(axis) for axis in range(len(shape))]
        return kernel if places == sorted(places) else keras.ops.transpose(kernel, places)


class _OrthogonalConvolution(ShapedInitializer):
    ranks = (3, 4, 5)
    meaning = CONVOLUTION

    def __init__(self, gain: float = 1.0, seed: Any = None):
        self.gain = checked_number("gain", gain, above=0)
        self.seed = checked_seed(seed)


@keras.saving.register_keras_serializable(PACKAGE)
class DeltaOrthogonal(_OrthogonalConvolution):
    r"""Draws a convolution kernel with an orthogonal matrix at its center and zeros around it.

    .. math::

        K_\text{center} = \text{gain} \, Q, \qquad K_\text{elsewhere} = 0

    With stride 1 and `padding="same"` it keeps every pixel's norm, if there are at least as many outputs as
    inputs (with fewer, it keeps that of the gradient). Networks of 10,000 layers were trained from it.

    Args:
        gain: Float. Factor of the norm: 1 for a linear layer, `keras_initkit.theory.gain("relu")`, or the $\sigma_w$ of
            `keras_initkit.theory.critical_point("tanh", sigma_b=0.05)`.
        seed: As in `ActivationScaling`.

    Raises:
        ValueError: If the gain is not positive; when called, if the rank of the shape is not 3, 4 or 5.

    Example:

    >>> from keras_initkit.initializers import DeltaOrthogonal
    >>> kernel = DeltaOrthogonal(seed=0)((3, 3, 8, 16))
    >>> round(float(keras.ops.sum(kernel**2)), 3), round(float(keras.ops.sum(kernel[1, 1] ** 2)), 3)
    (8.0, 8.0)

    References:
        - Lechao Xiao et al. (2018), "Dynamical isometry and a mean field theory of CNNs",
          https://arxiv.org/abs/1806.05393
    """

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        return at_center(haar(shape[-2:], self.gain, dtype, self.seed), shape[:-2])


@keras.saving.register_keras_serializable(PACKAGE)
class ConvOrthogonal(_OrthogonalConvolution):
    r"""Draws a convolution kernel that is an orthogonal map of the whole image, with every tap in use.

    .. math::

        K = \text{gain} \, H * [P_1, I - P_1] * [P_2, I - P_2] * \ldots

    $*$ is the convolution of matrix-valued kernels, $H$ is a uniform orthogonal matrix, and each factor has two
    taps along one axis of the field, with $P$ a uniform orthogonal projection on half the channels: one factor
    for every tap after the first, of every axis. As each factor is an orthogonal map, so is $K$: with stride 1
    and circular padding it keeps the norm of the image, if there are at least as many outputs as inputs (with
    fewer, that of the gradient). Other padding loses some at the border.

    Args:
        gain, seed: As in `DeltaOrthogonal`.

    Raises:
        ValueError: As in `DeltaOrthogonal`.

    Example:

    >>> from keras_initkit.initializers import ConvOrthogonal
    >>> kernel = ConvOrthogonal(seed=0)((3, 3, 8, 16))
    >>> round(float(keras.ops.sum(kernel**2)), 3), round(float(keras.ops.sum(kernel[0, 0] ** 2)), 1) > 0
    (8.0, True)

    References:
        - Lechao Xiao et al. (2018), "Dynamical isometry and a mean field theory of CNNs", algorithm 1, here for any
          field in one to three dimensions, https://arxiv.org/abs/1806.05393
    """

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        *field, inputs, outputs = shape
        few, many = sorted((inputs, outputs))
        # One factor for every tap after the first, the axes in turn.
        axes = [a for step in range(1, max(field)) for a, size in enumerate(field) if step < size]
        # One draw for all, since a second draw from the same integer seed would be equal to the first.
        half, tall = (many + 1) // 2, many * few
        normal = draw((tall + len(axes) * many * half,), 1.0, "untruncated_normal", dtype, self.seed)
        rotation = keras.ops.transpose(haar_columns(keras.ops.reshape(normal[:tall], (many, few)), self.gain))
        sizes = [1] * len(field) + [few, many]
        kernel = keras.ops.reshape(rotation, sizes)
        if axes:
            bases = haar_columns(keras.ops.reshape(normal[tall:], (len(axes), many, half)))
            if many % 2:  # round half of an odd number of channels up and down in turn: the mass stays central
                ranks = np.array([(many + axes[:index].count(axis) % 2) // 2 for index, axis in enumerate(axes)])
                bases = bases * keras.ops.convert_to_tensor(np.arange(half) < ranks[:, None, None], dtype)
            projections = keras.ops.matmul(bases, keras.ops.swapaxes(bases, -2, -1))
        # Few operations, since on small kernels their number is what takes time.
        for index, axis in enumerate(axes):
            # One product of matrices for all taps: where TensorFlow 2.16 broadcasts one over a kernel, it aborts.
            flat = keras.ops.reshape(kernel, (-1, many))
            near = keras.ops.reshape(keras.ops.matmul(flat, projections[index]), sizes)
            nothing = keras.ops.zeros([*sizes[:axis], 1, *sizes[axis + 1 :]], dtype)
            far = keras.ops.concatenate([nothing, kernel - near], axis)
            kernel = keras.ops.concatenate([near, nothing], axis) + far
            sizes[axis] += 1
        return kernel if inputs <= outputs else keras.ops.swapaxes(kernel, -2, -1)


@keras.saving.register_keras_serializable(PACKAGE)
class GatewiseOrthogonal(ShapedInitializer):
    r"""Draws a recurrent kernel with one orthogonal block per gate, side by side along its last axis.

    .. math::

        W = \text{gain} \, [Q_1, \ldots, Q_\text{gates}]

    Each $Q$ is uniform among the orthogonal matrices of its shape. Keras keeps the gates of an LSTM (4) or a GRU (3)
    in one kernel. Its `Orthogonal` makes that one wide matrix orthogonal, whose square blocks are not: their singular
    values run from nearly 0 to 0.9.

    Args:
        gates: Integer. Number of blocks: 4 for LSTM and ConvLSTM, 3 for GRU.
        gain: Float. Factor of each block.
        seed: As in `ActivationScaling`.

    Raises:
        ValueError: If the gain is not positive or gates is below 1; when called, if the rank of the shape is not 2 to
            5 or its last axis is no multiple of the gates.

    Example:

    >>> from keras_initkit.initializers import GatewiseOrthogonal
    >>> kernel = GatewiseOrthogonal(gates=4, seed=0)((16, 64))
    >>> forget = kernel[:, 16:32]
    >>> round(float(keras.ops.norm(forget[0])), 3), round(float(keras.ops.norm(forget[:, 0])), 3)
    (1.0, 1.0)

    References:
        - Andrew M. Saxe et al. (2014), "Exact solutions to the nonlinear dynamics of learning in deep linear neural
          networks", https://arxiv.org/abs/1312.6120
        - Francesco Mezzadri (2007), "How to generate random matrices from the classical compact groups",
          https://arxiv.org/abs/math-ph/0609050
    """

    ranks = range(2, 6)
    meaning = "a recurrent kernel (..., inputs, gates * units)"

    def __init__(self, gates: int = 4, gain: float = 1.0, seed: Any = None):
        self.gates = checked_count("gates", gates)
        self.gain = checked_number("gain", gain, above=0)
        self.seed = checked_seed(seed)

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape[-1] % self.gates:
            raise ValueError(
                f"shape: got {shape}, whose last axis does not divide into {self.gates} gates. "
                "Expected gates * units: 4 gates for LSTM, 3 for GRU."
            )

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        blocks = haar((self.gates, math.prod(shape[:-1]), shape[-1] // self.gates), self.gain, dtype, self.seed)
        return keras.ops.reshape(keras.ops.transpose(blocks, (1, 0, 2)), shape)
