"""What rules of attention advise: lines of the model's code, or kernels to draw."""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.report._attention_rows import AttentionStats, OrderStats
from keras_initkit.structure._attention_inputs import kernels_before
from keras_initkit.structure._layer_paths import held_weights

_USUAL = 2.0  # a kernel's standard deviation times sqrt(fan-in) lies within this factor of 1


def in_code(evidence: Evidence, path: str, by_keras: str, own: str) -> str:
    """Returns the line for Keras' attention or for one that is written by hand; both where that is not known."""
    model = evidence.model
    if model is None:
        return f"{by_keras} with Keras' layers, {own} with your own"
    layers = {call.path: call.layer for call in model.graph}
    keras_layers = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    return by_keras if isinstance(layers.get(path), keras_layers) else own


def add_positions(row: OrderStats, reading: AttentionStats | None) -> str:
    """Returns the lines of the model's code that add a table of positions to embeddings."""
    length = "tokens.shape[1]" if reading is None else f"{reading.queries}"
    if reading is not None and reading.padding is not None:  # the sum hands a mask on if both have it
        places = "keras.ops.not_equal(tokens, 0) * keras.ops.cumsum(keras.ops.not_equal(tokens, 0), axis=1)"
        table = f"keras.layers.Embedding({length} + 1, x.shape[-1], mask_zero=True)"
    else:
        places = "keras.ops.cumsum(keras.ops.ones_like(tokens), axis=1) - 1"
        table = f"keras.layers.Embedding({length}, x.shape[-1])"
    return f"`places = {places}; x = keras.layers.Add()([x, {table}(places)])`"


def scale_scores(evidence: Evidence, row: AttentionStats) -> str:
    """Returns the remedy for scores that are too large or too small: their kernels, or what multiplies them."""
    model = evidence.model
    attention = None if model is None else next((each for each in model.attentions if each.path == row.layer), None)
    if model is not None and attention is not None:
        kernels = {
            id(each): each
            for side in (attention.query, attention.key)
            for each in kernels_before(model.calls, side).variables
        }
        paths = [path for path, _, weight in held_weights(model.model) if id(weight) in kernels and _is_off(weight)]
        if paths:
            listed = list(dict.fromkeys(paths))
            return (
                "Draw the kernels of queries and keys on their scale, and train again: "
                f'`keras_initkit.initialize(model, "glorot_uniform", layers={listed})`.'
            )
    line = in_code(
        evidence,
        row.layer,
        "normalize what the attention reads: `x = keras.layers.LayerNormalization()(x)`",
        "divide the scores by the root of a head's units, and by nothing else: "
        "`scores = scores / query.shape[-1] ** 0.5`",
    )
    return f"In the model's code, {line}."


def _is_off(kernel: keras.Variable) -> bool:
    """Whether a kernel's scale is far from that of its inputs."""
    values = to_numpy(kernel)
    size = float(np.sqrt(np.square(values, dtype="float64").mean())) * math.sqrt(values.shape[0])
    return not 1 / _USUAL < size < _USUAL
