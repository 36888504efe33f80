"""One kernel, drawn by any initializer with the fans and axes that its layer gives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit._random_state import python_random
from keras_initkit.initializers._base import ShapedInitializer
from keras_initkit.initializers._core import ScaledVariance, draw, wide
from keras_initkit.initializers._haar import haar
from keras_initkit.initializers._orthogonal import GatewiseOrthogonal, ScaledOrthogonal
from keras_initkit.initializers._structured import Dirac
from keras_initkit.initializers._upsampling import ICNR, BilinearUpsampling
from keras_initkit.structure import Kernel
from keras_initkit.structure._kernel import as_tuple
from keras_initkit.theory._fans import Fans

_ORTHOGONAL = (keras.initializers.Orthogonal, ScaledOrthogonal, GatewiseOrthogonal)
# These say what one block (field..., inputs, outputs) holds; of all others the values belong to a shape.
_OF_A_BLOCK = (*_ORTHOGONAL, ShapedInitializer)
_OF_A_SHAPE = (ICNR, BilinearUpsampling)
# What an argument that repeats the layer's own structure means for a single block of it.
_ONE_BLOCK = {ScaledOrthogonal: {"out_axes": -1}, GatewiseOrthogonal: {"gates": 1}, Dirac: {"groups": 1}}


def scaled_variance(initializer: Any, fans: Fans) -> float | None:
    """Returns the variance that a variance-scaling initializer, ours or Keras', gives a kernel; `None` for any other.

    A subclass that draws in a way of its own counts as another. A fan below 1, as strides leave it, counts as 1,
    which is how both compute it from a shape.
    """
    if isinstance(initializer, ScaledVariance):
        own = type(initializer).__call__ is ScaledVariance.__call__
        return initializer.variance(fans) if own else None
    scaling = keras.initializers.VarianceScaling
    if not isinstance(initializer, scaling) or type(initializer).__call__ is not scaling.__call__:
        return None
    fan_in, fan_out = fans
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[initializer.mode]
    return initializer.scale / max(fan, 1.0)


def tied_variance(kernel: Kernel) -> float:
    """Returns the largest variance of a table with which a language model of V tokens and d features starts as a guess.

    At 1 / d the logits of normalized features have variance 1. Through the residual stream a token's own row may come
    to the output nearly unchanged and meet itself there: the logit is d times the standard deviation then, which
    should not be beyond ln V, where it outweighs all other tokens.
    """
    features, tokens = kernel.output_use.fans
    return min(1 / max(features, 1.0), (math.log(max(tokens, 2.0)) / max(features, 1.0)) ** 2)


def draw_kernel(kernel: Kernel, initializer: Any, seed: int) -> np.ndarray:
    """New values for `kernel.variable`, in float32 at least.

    - Variance scaling: independent elements of variance scale / fan, the fan being the kernel's own.
    - Orthogonal matrices, Dirac, delta-orthogonal and the like: one block (field..., inputs, outputs) for each gate,
      group or depthwise channel, the axes in this order whatever the layer's. An orthogonal one of a transposed
      convolution of stride s is multiplied by sqrt(prod(s)), since an output is reached from 1 of prod(s) taps alone.
    - Any other: what it draws for the kernel's shape, gate by gate for a recurrent layer's.

    A table that is an embedding and the output's kernel as well is drawn as the latter, of variance `tied_variance` at
    most where the initializer scales variances or is orthogonal.
    """
    if kernel.tied:
        values = draw_kernel(kernel.output_use, initializer, seed)
        scales = _draws_haar(initializer) or scaled_variance(initializer, kernel.output_use.fans) is not None
        square = float(np.mean(np.square(values))) if scales and values.size else 0.0
        return values * min(1.0, math.sqrt(tied_variance(kernel) / square)) if square > 0 else values
    shape, dtype = tuple(kernel.variable.shape), wide(keras.backend.standardize_dtype(kernel.variable.dtype))
    variance = scaled_variance(initializer, kernel.fans)
    if variance is not None:
        return _numpy(draw(shape, variance, initializer.distribution, dtype, seed))
    of_a_block = isinstance(initializer, _OF_A_BLOCK) and not isinstance(initializer, _OF_A_SHAPE)
    matrix = isinstance(initializer, keras.initializers.Identity) and not _field(kernel)
    try:
        if kernel.role != "embedding" and _draws_haar(initializer):
            values = _in_place(kernel, lambda count, block: _orthogonal(initializer.gain, count, block, dtype, seed))
        elif kernel.role != "embedding" and (of_a_block or matrix or kernel.gates):
            values = _block_by_block(kernel, initializer, seed, dtype)
        else:
            values = draw_plain(initializer, shape, dtype, seed)
    except (ValueError, TypeError) as error:
        name = getattr(initializer, "__name__", type(initializer).__name__)
        raise ValueError(
            f"{name} has no values for {kernel.variable.path} of shape {shape} ({kernel.role}): {error} "
            "Leave its layer out by `layers`, or give a function of the layer."
        ) from error
    if kernel.role == "conv_transpose" and isinstance(initializer, _ORTHOGONAL):
        values = math.sqrt(math.prod(kernel.strides)) * values
    return values


def draw_plain(initializer: Any, shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """What an initializer draws for a shape, from a seed that takes the place of its own."""
    dtype = wide(keras.backend.standardize_dtype(dtype))
    with python_random(seed):  # where an initializer, or a function, gets the seeds that it has not been given
        return _numpy(_seeded(initializer, seed)(shape, dtype=dtype))


def _field(kernel: Kernel) -> list[int]:
    """Axes of the receptive field."""
    taken = [axis for axes in (kernel.in_axes, kernel.out_axes, kernel.batch_axes) for axis in as_tuple(axes)]
    return [axis for axis in range(len(kernel.shape)) if axis not in taken]


def _draws_haar(initializer: Any) -> bool:
    """Whether it is one of the orthogonal initializers, and no subclass that draws in a way of its own."""
    return any(
        isinstance(initializer, known)
        and all(getattr(type(initializer), name, 0) is getattr(known, name, 0) for name in ("__call__", "_values"))
        for known in _ORTHOGONAL
    )


def _orthogonal(gain: float, count: int, block: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """All blocks in one decomposition: a depthwise convolution has hundreds."""
    return _numpy(haar((count, math.prod(block[:-1]), block[-1]), gain, dtype, seed))


def _block_by_block(kernel: Kernel, initializer: Any, seed: int, dtype: str) -> np.ndarray:
    """Each block drawn by itself."""
    changed = next((config for known, config in _ONE_BLOCK.items() if isinstance(initializer, known)), {})
    if changed:
        initializer = type(initializer).from_config({**initializer.get_config(), **changed})

    def blocks(count: int, block: tuple[int, ...]) -> np.ndarray:
        seeds = np.random.SeedSequence(seed).generate_state(count).tolist()
        return np.stack([draw_plain(initializer, block, dtype, each) for each in seeds])

    return _in_place(kernel, blocks)


def _in_place(kernel: Kernel, blocks: Callable[[int, tuple[int, ...]], np.ndarray]) -> np.ndarray:
    """`blocks(count, (field..., inputs, outputs))`, put where the kernel has them."""

    def sizes(axes: Sequence[int]) -> list[int]:
        return [kernel.shape[axis] for axis in axes]

    field = _field(kernel)
    batch, ins, outs = (as_tuple(axes) for axes in (kernel.batch_axes, kernel.in_axes, kernel.out_axes))
    packed = blocks(math.prod(sizes(batch)), (*sizes(field), math.prod(sizes(ins)), math.prod(sizes(outs))))
    order = [*batch, *field, *ins, *outs]
    return packed.reshape(sizes(order)).transpose(np.argsort(order)).reshape(tuple(kernel.variable.shape))


def _seeded(initializer: Any, seed: int) -> Any:
    """The initializer with another seed, and those inside it too; a plain function as it is."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = _reseeded(dict(initializer.get_config()), seed)
    return initializer if config is None else type(initializer).from_config(config)


def _reseeded(config: dict[str, Any], seed: int) -> dict[str, Any] | None:
    """The configuration with every seed in it replaced; `None` if there is none."""
    changed: dict[str, Any] = {}
    for name, value in config.items():
        if name == "seed":
            changed[name] = seed
        elif isinstance(value, dict) and isinstance(value.get("config"), dict):
            inner = _reseeded(value["config"], seed)
            if inner is not None:
                changed[name] = {**value, "config": inner}
    return {**config, **changed} if changed else None


def _numpy(tensor: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(tensor))
