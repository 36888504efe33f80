"""One kernel, drawn by any initializer with the fans that its layer gives it."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_initkit.initializers.core import ScaledVariance, draw
from keras_initkit.initializers.orthogonal import ScaledOrthogonal
from keras_initkit.structure import Kernel
from keras_initkit.theory.fans import Fans

_ORTHOGONAL = (keras.initializers.Orthogonal, ScaledOrthogonal)


def scaled_variance(initializer: Any, fans: Fans) -> float | None:
    """The variance that a variance-scaling initializer, ours or Keras' own, gives a kernel of these fans.

    `None` for any other initializer, and for a subclass of Keras' that draws in a way of its own.
    """
    if isinstance(initializer, ScaledVariance):
        own = type(initializer).__call__ is ScaledVariance.__call__
        return initializer.variance(fans) if own else None
    scaling = keras.initializers.VarianceScaling
    if not isinstance(initializer, scaling) or type(initializer).__call__ is not scaling.__call__:
        return None
    fan_in, fan_out = fans
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[initializer.mode]
    return initializer.scale / fan


def draw_kernel(kernel: Kernel, initializer: Any, seed: int) -> np.ndarray:
    """New values for `kernel.variable`.

    - Variance scaling: independent elements of variance scale / fan, the fan being the kernel's own.
    - Orthogonal: an orthogonal matrix (receptive field and inputs, outputs) for each gate, group or depthwise
      channel; of a transposed convolution of stride s, times sqrt(prod(s)), since an output is reached from
      1 of prod(s) taps alone.
    - Any other: what it draws for the kernel's shape, gate by gate for a recurrent layer's.

    Args:
        kernel: from `structure.kernels`.
        initializer: an instance; its configuration is kept, its seed is replaced.
        seed: of this kernel's draw.
    """
    variance = scaled_variance(initializer, kernel.fans)
    dtype = keras.backend.standardize_dtype(kernel.variable.dtype)
    shape = tuple(kernel.variable.shape)
    if variance is not None:
        return _numpy(draw(shape, variance, initializer.distribution, dtype, seed))
    seeds = iter(np.random.SeedSequence(seed).generate_state(max(1, _blocks(kernel))).tolist())
    if isinstance(initializer, _ORTHOGONAL) and kernel.role != "embedding":
        spread = math.prod(kernel.strides) if kernel.role == "conv_transpose" else 1
        return math.sqrt(spread) * _block_by_block(kernel, initializer, seeds, dtype)
    if kernel.gates:
        return _block_by_block(kernel, initializer, seeds, dtype)
    return _numpy(_seeded(initializer, next(seeds))(shape, dtype=dtype))


def _blocks(kernel: Kernel) -> int:
    return math.prod(kernel.shape[axis] for axis in kernel.batch_axes)


def _block_by_block(kernel: Kernel, initializer: Any, seeds: Any, dtype: str) -> np.ndarray:
    """Each block of (receptive field, inputs, outputs) drawn by itself as a matrix, put where the kernel has it."""
    axes = range(len(kernel.shape))
    field = [axis for axis in axes if axis not in (*kernel.in_axes, *kernel.out_axes, *kernel.batch_axes)]
    order = [*kernel.batch_axes, *field, *kernel.in_axes, *kernel.out_axes]
    rows = math.prod(kernel.shape[axis] for axis in (*field, *kernel.in_axes))
    columns = math.prod(kernel.shape[axis] for axis in kernel.out_axes)
    # In float32, since Keras' QR has no half precision.
    wide = dtype if dtype in ("float32", "float64") else "float32"
    blocks = [_numpy(_seeded(initializer, next(seeds))((rows, columns), dtype=wide)) for _ in range(_blocks(kernel))]
    packed = np.stack(blocks).reshape([kernel.shape[axis] for axis in order])
    return packed.transpose(np.argsort(order)).reshape(tuple(kernel.variable.shape))


def _seeded(initializer: Any, seed: int) -> Any:
    """The initializer with another seed, where it has one; a plain function as it is."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = dict(initializer.get_config())
    if "seed" not in config:
        return initializer
    return type(initializer).from_config({**config, "seed": seed})


def _numpy(tensor: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(tensor))
