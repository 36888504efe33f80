"""Kernels of upsampling layers, without the checkerboard artifacts of random ones."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_initkit._checks import checked_count
from keras_initkit.initializers._base import CONVOLUTION, ShapedInitializer
from keras_initkit.initializers._core import PACKAGE
from keras_initkit.initializers._lookup import get


@keras.saving.register_keras_serializable(PACKAGE)
class ICNR(ShapedInitializer):
    r"""Draws the kernel of a sub-pixel convolution that starts as a convolution and nearest-neighbor resizing.

    .. math::

        K = [K_0, \ldots, K_0]

    These are `scale**d` copies, side by side, of one kernel for `outputs / scale**d` channels. Channels are in the
    order of `keras.ops.depth_to_space` (and TensorFlow's): the position inside a block of
    pixels first, then the channel.

    Args:
        scale: Integer. Factor of the image's size along each of its $d$ axes: `depth_to_space`'s block size.
        initializer: String, dict, class or instance. The initializer of $K_0$, in any form that
            `keras_initkit.initializers.get` takes.

    Raises:
        ValueError: If the scale is below 1 or the initializer is unknown; when called, if the rank of the shape is not
            3, 4 or 5, or its number of outputs is no multiple of `scale**d`.

    Example:

    >>> from keras_initkit.initializers import ICNR
    >>> kernel = ICNR(scale=2)((3, 3, 8, 12))
    >>> bool(keras.ops.all(kernel[..., 0:3] == kernel[..., 9:12]))  # 3 channels, 4 positions
    True

    References:
        - Andrew Aitken et al. (2017), "Checkerboard artifact free sub-pixel convolution",
          https://arxiv.org/abs/1707.02937
    """

    ranks = (3, 4, 5)
    meaning = CONVOLUTION

    def __init__(self, scale: int = 2, initializer: Any = "he_normal"):
        self.scale = checked_count("scale", scale)
        found = get(initializer)
        self.initializer = initializer if isinstance(initializer, str) else found

    def _check(self, shape: tuple[int, ...]) -> None:
        copies = self.scale ** (len(shape) - 2)
        if shape[-1] % copies:
            raise ValueError(
                f"shape: got {shape}, whose {shape[-1]} outputs are no multiple of {copies}, "
                f"the number of pixels that one becomes at scale {self.scale}."
            )

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        *others, outputs = shape
        copies = self.scale ** (len(shape) - 2)
        initializer = get(self.initializer)
        if getattr(initializer, "seed", None) is not None and initializer.get_config().get("seed", 0) is None:
            initializer = initializer.clone()  # Keras' own, unseeded, would draw the same values at every call
        kernel = initializer((*others, outputs // copies), dtype=dtype)
        return keras.ops.tile(kernel, (1,) * len(others) + (copies,))


@keras.saving.register_keras_serializable(PACKAGE)
class BilinearUpsampling(ShapedInitializer):
    r"""Sets the kernel of a transposed convolution to interpolate linearly along each axis, each channel by itself.

    .. math::

        K_{x, y, c, c} = w(x) w(y), \qquad w(x) = 1 - |x - \text{center}| / f, \qquad f = \lceil \text{size} / 2 \rceil

    For strides of $f$ use a kernel of size `2 * f - f % 2` with `padding="same"`. Linear in one dimension, bilinear
    in two, trilinear in three.

    Raises:
        ValueError: When called, if the rank of the shape is not 3, 4 or 5, or the numbers of inputs and outputs differ.

    Example:

    >>> from keras_initkit.initializers import BilinearUpsampling
    >>> [float(w) for w in BilinearUpsampling()((4, 1, 1))[:, 0, 0]]
    [0.25, 0.75, 0.75, 0.25]
    >>> layer = keras.layers.Conv1DTranspose(1, 4, strides=2, padding="same", kernel_initializer=BilinearUpsampling())
    >>> [float(y) for y in layer(np.array([[[0.0], [0.0], [8.0], [0.0], [0.0]]]))[0, :, 0]]
    [0.0, 0.0, 0.0, 2.0, 6.0, 6.0, 2.0, 0.0, 0.0, 0.0]

    References:
        - Jonathan Long et al. (2015), "Fully convolutional networks for semantic segmentation", section 3.3,
          https://arxiv.org/abs/1411.4038
    """

    ranks = (3, 4, 5)
    meaning = "a kernel (field..., outputs, inputs) in one, two or three dimensions"

    def _check(self, shape: tuple[int, ...]) -> None:
        outputs, inputs = shape[-2:]
        if outputs != inputs:
            raise ValueError(
                f"shape: got {shape} with {inputs} inputs and {outputs} outputs, expected equal numbers: "
                "each channel is interpolated by itself."
            )

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        *field, inputs, _ = shape
        # The largest is 1 where the size is odd; where it is even, the center lies between two taps.
        weights = [1 - np.abs(np.arange(n) - (n - 1) / 2) / math.ceil(n / 2) for n in field]
        kernel = np.eye(inputs)
        for axis_weights in reversed(weights):
            kernel = np.multiply.outer(axis_weights, kernel)
        return keras.ops.convert_to_tensor(kernel, dtype)
