"""The units of a layer: where they are in its pre-activations, its kernel and its bias."""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_initkit.structure import Kernel
from keras_initkit.structure._kernel import as_tuple


def bias_of(layer: keras.layers.Layer) -> keras.Variable | None:
    """The bias that a layer adds to its pre-activations."""
    bias = getattr(layer, "bias", None)
    return bias if any(bias is weight for weight in layer.weights) else None


def unit_means(layer: keras.layers.Layer, z: np.ndarray) -> np.ndarray:
    """The mean of what shares an element of the layer's bias, as an array that broadcasts to `z`."""
    bias = bias_of(layer)
    shape = () if bias is None else tuple(bias.shape)
    if len(shape) == 1 and (axis := unit_axis(layer, z)) != z.ndim - 1:
        kept = [axis]
    else:  # EinsumDense's has an axis of 1 where it is shared
        kept = [z.ndim - len(shape) + place for place, size in enumerate(shape) if size > 1]
    return z.mean(axis=tuple(axis for axis in range(z.ndim) if axis not in kept), keepdims=True)


def unit_axis(layer: keras.layers.Layer, z: np.ndarray) -> int:
    """The axis of a layer's units, or channels."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" and z.ndim > 2 else z.ndim - 1


def unit_variances(layer: keras.layers.Layer, kernel: Kernel, z: np.ndarray) -> np.ndarray | None:
    """Returns each unit's variance of z, broadcastable to the kernel; `None` if outputs are not the kernel's units."""
    if isinstance(layer, keras.layers.EinsumDense):
        letters, outputs = layer.equation.replace(" ", "").split(",")[1].split("->")
        # An ellipsis stands first, so places are counted from the end.
        places = {letter: z.ndim - len(outputs) + outputs.index(letter) for letter in letters if letter in outputs}
        kept = [places[letter] for letter in letters if letter in places]
        axes = [axis for axis, letter in enumerate(letters) if letter in places]
    else:
        kept = [unit_axis(layer, z)]
        axes = sorted((*as_tuple(kernel.batch_axes), *as_tuple(kernel.out_axes)))
    variances = z.var(axis=tuple(axis for axis in range(z.ndim) if axis not in kept))
    if len(kept) > 1:
        variances = variances.transpose(np.argsort(np.argsort(kept)))
    shape = [size if axis in axes else 1 for axis, size in enumerate(kernel.shape)]
    return variances.reshape(shape) if variances.size == math.prod(shape) else None
