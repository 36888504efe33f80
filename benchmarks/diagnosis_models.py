"""Sound models, small enough to train in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers as L

MOMENTUM = 0.9  # of moving averages: runs of a hundred steps are short for the default of 0.99
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mlp(
    depth: int,
    width: int,
    activation: Any,
    initializer: Any = "glorot_uniform",
    norm: type[keras.layers.Layer] | None = None,
    dropout: float = 0.0,
    inputs: int = 64,
    outputs: int = 10,
    head: str | None = None,
    **options: Any,
) -> keras.Model:
    """Hidden layers of one width, normalised before their activations if at all."""
    x = given = keras.Input((inputs,))
    for _ in range(depth):
        x = L.Dense(width, None if norm else activation, kernel_initializer=initializer, **options)(x)
        if norm is not None:
            x = L.Activation(activation)(norm()(x))
        if dropout:
            x = L.Dropout(dropout)(x)
    return keras.Model(given, L.Dense(outputs, head)(x))


def residual_mlp(branches: int, zero_last: bool = False, inputs: int = 64) -> keras.Model:
    """Branches of two layers on a stream, without normalisation."""
    given = keras.Input((inputs,))
    x = L.Dense(32)(given)
    for _ in range(branches):
        y = L.Dense(32, "relu", kernel_initializer="he_normal")(x)
        x = L.Add()([x, L.Dense(32, kernel_initializer="zeros" if zero_last else "glorot_uniform")(y)])
    return keras.Model(given, L.Dense(10)(x))


def cnn(
    filters: Sequence[int],
    size: int = 8,
    activation: str = "relu",
    norm: type[keras.layers.Layer] | None = None,
    initializer: str = "glorot_uniform",
    flatten: bool = True,
) -> keras.Model:
    """Convolutions, each second one with a stride of two."""
    x = given = keras.Input((size, size, 1))
    for number, count in enumerate(filters):
        x = L.Conv2D(count, 3, 1 + number % 2, "same", use_bias=norm is None, kernel_initializer=initializer)(x)
        x = L.Activation(activation)(x if norm is None else norm()(x))
    x = L.Flatten()(x) if flatten else L.GlobalAveragePooling2D()(x)
    return keras.Model(given, L.Dense(10)(x))


def resnet(blocks: int, size: int = 8, pre_activation: bool = False, zero_gamma: bool = False) -> keras.Model:
    """Residual blocks of two convolutions with batch normalisation (He et al. 2016, both orders)."""
    given = keras.Input((size, size, 1))
    x = L.Conv2D(12, 3, padding="same", use_bias=False)(given)
    if not pre_activation:
        x = L.ReLU()(L.BatchNormalization(momentum=MOMENTUM)(x))
    for _ in range(blocks):
        y = x
        for last in (False, True):
            if pre_activation:
                y = L.ReLU()(L.BatchNormalization(momentum=MOMENTUM)(y))
            y = L.Conv2D(12, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(y)
            if not pre_activation:
                gamma = "zeros" if last and zero_gamma else "ones"
                y = L.BatchNormalization(momentum=MOMENTUM, gamma_initializer=gamma)(y)
                y = y if last else L.ReLU()(y)
        x = L.Add()([x, y]) if pre_activation else L.ReLU()(L.Add()([x, y]))
    if pre_activation:
        x = L.ReLU()(L.BatchNormalization(momentum=MOMENTUM)(x))
    return keras.Model(given, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def mobile(size: int = 8) -> keras.Model:
    """Depthwise and pointwise convolutions, each with batch normalisation."""
    x = given = keras.Input((size, size, 1))
    x = L.ReLU()(L.BatchNormalization(momentum=MOMENTUM)(L.Conv2D(16, 3, padding="same", use_bias=False)(x)))
    for _ in range(2):
        x = L.ReLU(6.0)(
            L.BatchNormalization(momentum=MOMENTUM)(L.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
        )
        x = L.ReLU(6.0)(L.BatchNormalization(momentum=MOMENTUM)(L.Conv2D(24, 1, use_bias=False)(x)))
    return keras.Model(given, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def transformer(blocks: int = 1, tokens: int | None = None, pre_norm: bool = True, outputs: int = 10) -> keras.Model:
    """Blocks of attention and two layers, on tokens or on the rows of an image."""
    given = keras.Input((16,), dtype="int32") if tokens else keras.Input((8, 8))
    x = L.Embedding(tokens, 32)(given) if tokens else L.Dense(32)(given)
    for _ in range(blocks):
        y = L.LayerNormalization()(x) if pre_norm else x
        x = L.Add()([x, L.MultiHeadAttention(4, 8)(y, y)])
        x = x if pre_norm else L.LayerNormalization()(x)
        y = L.LayerNormalization()(x) if pre_norm else x
        x = L.Add()([x, L.Dense(32)(L.Dense(64, "gelu")(y))])
        x = x if pre_norm else L.LayerNormalization()(x)
    x = L.Flatten()(L.LayerNormalization()(x) if pre_norm else x)
    return keras.Model(given, L.Dense(outputs)(x))


def recurrent(layer: Callable[..., Any], stacked: int = 1, tokens: int | None = None) -> keras.Model:
    """Recurrent layers on tokens or on the rows of an image."""
    given = keras.Input((16,), dtype="int32") if tokens else keras.Input((8, 8))
    x = L.Embedding(tokens, 16)(given) if tokens else given
    for _ in range(stacked - 1):
        x = layer(24, return_sequences=True)(x)
    return keras.Model(given, L.Dense(4 if tokens else 10)(layer(32)(x)))


def auto_encoder(activation: str, bottleneck: int = 12, head: str | None = None) -> keras.Model:
    """With a linear bottleneck."""
    given = keras.Input((64,))
    x = L.Dense(bottleneck)(L.Dense(48, activation)(given))
    return keras.Model(given, L.Dense(64, head)(L.Dense(48, activation)(x)))


def frozen_backbone() -> keras.Model:
    """The first two layers do not train."""
    model = mlp(3, 64, "relu", "he_normal")
    for layer in model.layers[1:3]:
        layer.trainable = False
    return model


def shared_layer() -> keras.Model:
    """One layer, applied three times."""
    given = keras.Input((64,))
    x, shared = L.Dense(32, "tanh")(given), L.Dense(32, "tanh")
    return keras.Model(given, L.Dense(10)(shared(shared(shared(x)))))


def two_paths() -> keras.Model:
    """A wide and a deep path, concatenated."""
    given = keras.Input((64,))
    deep = L.Dense(32, "relu")(L.Dense(32, "relu")(given))
    return keras.Model(given, L.Dense(10)(L.Concatenate()([given, deep])))


def bag_of_words() -> keras.Model:
    """The mean of embeddings."""
    given = keras.Input((20,), dtype="int32")
    x = L.Dense(16, "relu")(L.GlobalAveragePooling1D()(L.Embedding(40, 16)(given)))
    return keras.Model(given, L.Dense(1, "sigmoid")(x))


def normalised_inputs() -> keras.Model:
    """Raw pixels of 0 to 255, which the model's own first layers scale."""
    given = keras.Input((64,))
    x = L.Rescaling(1 / 0.376, -0.305 / 0.376)(given)
    return keras.Model(given, L.Dense(10)(L.Dense(64, "relu", kernel_initializer="he_normal")(x)))


def conv1d() -> keras.Model:
    """Dilated convolutions over time."""
    x = given = keras.Input((8, 8))
    for rate in (1, 2):
        x = L.Conv1D(24, 3, padding="causal", dilation_rate=rate, activation="relu")(x)
    return keras.Model(given, L.Dense(10)(L.Flatten()(x)))
