"""layer_fans(): the fans of each kernel of a layer."""

from __future__ import annotations

import keras

from keras_initkit.structure._kernels import kernels
from keras_initkit.structure._variables import VariableMap
from keras_initkit.theory._fans import Fans


def layer_fans(layer: keras.Layer) -> VariableMap[Fans]:
    """Returns the fans of every kernel of a built layer or model, by how the layer uses it.

    Args:
        layer: A built layer or model; its sublayers are included.

    Returns:
        A read-only dictionary from each variable to its `Fans(fan_in, fan_out)`. A recurrent kernel has the fans of
        one gate, a grouped convolution those of one group.

    Raises:
        ValueError: As `kernels`.

    Example:

    >>> layer = keras.layers.DepthwiseConv2D(3)
    >>> layer.build((None, 32, 32, 64))
    >>> layer_fans(layer)[layer.kernel]
    Fans(fan_in=9.0, fan_out=9.0)
    """
    return VariableMap((kernel.variable, kernel.fans) for kernel in kernels(layer))
