"""The models that `schemes.py` initializes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers


def mlp(depth: int, width: int, activation: str, inputs: int | None = None, outputs: int | None = None) -> keras.Model:
    """Dense layers, the last one linear if `outputs` are given."""
    model = keras.Sequential([keras.Input((inputs or width,))])
    for _ in range(depth - (outputs is not None)):
        model.add(layers.Dense(width, activation))
    if outputs is not None:
        model.add(layers.Dense(outputs))
    return model


def vgg() -> keras.Model:
    """Pairs of convolutions and pooling, a depthwise one and a strided transposed one among them."""
    x = inputs = keras.Input((32, 32, 3))
    for filters in (32, 64, 128):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Dense(128, "relu")(layers.Flatten()(layers.MaxPooling2D()(x)))
    return keras.Model(inputs, layers.Dense(10)(x))


def resnet20() -> keras.Model:
    """He et al. 2016, section 4.2: 3 x 3 residual blocks of two convolutions, with batch normalisation."""
    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            stride, shortcut = (2 if stage and not block else 1), x
            y = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
            y = layers.ReLU()(layers.BatchNormalization()(y))
            y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
            y = layers.BatchNormalization()(y)
            if stride > 1:
                shortcut = layers.Conv2D(filters, 1, strides=2, use_bias=False)(x)
                shortcut = layers.BatchNormalization()(shortcut)
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def transformer() -> keras.Model:
    """Six pre-norm blocks."""
    x = inputs = keras.Input((32, 64))
    for _ in range(6):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 16)(y, y)])
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.Dense(64)(layers.Dense(256, "gelu")(y))])
    return keras.Model(inputs, layers.Dense(10)(layers.LayerNormalization()(x)))


def lstm() -> keras.Model:
    """Two layers."""
    x = inputs = keras.Input((32, 16))
    x = layers.LSTM(64)(layers.LSTM(64, return_sequences=True)(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def unet() -> keras.Model:
    """Three levels, joined by concatenation."""
    x = inputs = keras.Input((32, 32, 3))
    skips = []

    def block(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        return x

    for filters in (16, 32):
        x = block(x, filters)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, 64)
    for filters in (32, 16):
        x = layers.Conv2DTranspose(filters, 2, strides=2, padding="same")(x)
        x = block(layers.Concatenate()([skips.pop(), x]), filters)
    return keras.Model(inputs, layers.Conv2D(1, 1)(x))


def residual_mlp(inputs: int, outputs: int, branches: int = 20, width: int = 128) -> keras.Model:
    """Branches of two Dense layers on a stream, no normalisation."""
    given = keras.Input((inputs,))
    x = layers.Dense(width, "relu")(given)
    for _ in range(branches):
        y = layers.Dense(width)(layers.Dense(width, "relu")(x))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(given, layers.Dense(outputs)(x))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "tanh MLP, 100 layers": lambda: mlp(100, 256, "tanh"),
    "VGG-like CNN": vgg,
    "ResNet-20": resnet20,
    "transformer, 6 layers": transformer,
    "LSTM, 2 layers": lstm,
    "U-Net": unet,
}
