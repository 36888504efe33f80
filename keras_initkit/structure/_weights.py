"""The weights that a layer owns."""

from __future__ import annotations

import re

import keras

from keras_initkit.structure._layer_kinds import quantization_mode
from keras_initkit.structure._sublayers import sublayers

_QUANTIZATION = re.compile("(.*_)?(scale|zero|zero_point|amax_history|g_idx)")


def own_weights(layer: keras.Layer, into_loops: bool = False) -> list[keras.Variable]:
    """Returns a layer's weights without those of its sublayers, which have paths themselves.

    Unless `into_loops`, recurrent and time-distributed layers are seen as a whole and own all their parts' weights.
    """
    inside = {id(weight) for part in sublayers(layer, into_loops) for weight in part.weights}
    return [weight for weight in layer.weights if id(weight) not in inside]


def is_quantization_state(layer: keras.Layer, weight: keras.Variable) -> bool:
    """Whether a weight of a quantized layer is a code, or what codes are decoded by."""
    return quantization_mode(layer) is not None and (
        not keras.backend.is_float_dtype(keras.backend.standardize_dtype(weight.dtype))
        or _QUANTIZATION.fullmatch(weight.name) is not None
    )


def main_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Returns the weights that represent a layer where one statistic covers all of them.

    Its own weights of rank 2 or more (kernels, recurrent kernels, embeddings), because a bias of zeros beside them
    would only blur the statistic. A layer without any, such as BatchNormalization, has all its trainable weights; one
    whose kernel is quantized has none but factors that are added to it (LoRA).
    """
    trained = {id(weight) for weight in layer.trainable_weights}
    own = own_weights(layer)
    matrices = [weight for weight in own if len(weight.shape) > 1]
    if matrices:
        return [weight for weight in matrices if not is_quantization_state(layer, weight)]
    return [weight for weight in own if id(weight) in trained]
