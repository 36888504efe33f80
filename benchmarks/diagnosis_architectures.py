"""Eight architectures that train soundly, and the variants that some faults need.

Layers have the same names in every architecture: `trunk_0`, `trunk_1`, ..., then `features`, a Dense layer that is not
normalised, and `logits`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from diagnosis_models import FROM_LOGITS
from keras import layers as L

INITIALIZERS = keras.initializers


class StopGradient(keras.layers.Layer):
    """What a careless `argmax` or a conversion to NumPy does."""

    def call(self, x: Any) -> Any:
        """The same values."""
        return keras.ops.stop_gradient(x)


class Variant(NamedTuple):
    """What an architecture is built with, other than soundly.

    Args:
        squash: activation of all hidden layers.
        features: activation of `features`.
        stop: whether no gradient comes back through the input of `features`.
        wrong_fans: whether a depthwise layer `wrong`, drawn by Keras' fans, stands before `features`.
        one_unit: whether the head is a softmax of a single unit.
        deep: number of further Dense layers `deep_0`, ... before `features`, each with the activation `squash`.
    """

    squash: str | None = None
    features: str | None = None
    stop: bool = False
    wrong_fans: bool = False
    one_unit: bool = False
    deep: int = 0


SOUND = Variant()


class Architecture(NamedTuple):
    """A sound model: its activation, its data, its trunk."""

    activation: str
    data: str
    trunk: Callable[[Any, str], Any]
    layers: int


def dense_trunk(x: Any, activation: str) -> Any:
    for number in range(5):
        x = L.Dense(48, activation, kernel_initializer=_suited(activation), name=f"trunk_{number}")(x)
    return x


def _cnn_trunk(norm: bool) -> Callable[[Any, str], Any]:
    def trunk(x: Any, activation: str) -> Any:
        for number in range(3):
            stride = 2 if number == 1 else 1
            options = {"kernel_initializer": _suited(activation), "name": f"trunk_{number}"}
            x = L.Conv2D(12, 3, stride, "same", activation=None if norm else activation, **options)(x)
            x = L.Activation(activation)(L.BatchNormalization()(x)) if norm else x
        return x

    return trunk


def _resnet_trunk(x: Any, activation: str) -> Any:
    x = L.Conv2D(12, 3, padding="same", kernel_initializer="he_normal", name="trunk_0")(x)
    for number in (1, 3):
        y = L.Activation(activation)(L.BatchNormalization()(x))
        y = L.Conv2D(12, 3, padding="same", kernel_initializer="he_normal", name=f"trunk_{number}")(y)
        y = L.Activation(activation)(L.BatchNormalization()(y))
        y = L.Conv2D(12, 3, padding="same", kernel_initializer="he_normal", name=f"trunk_{number + 1}")(y)
        x = L.Add()([x, y])
    return L.Activation(activation)(L.BatchNormalization()(x))


def _transformer_trunk(x: Any, activation: str) -> Any:
    x = L.Dense(24, name="trunk_0")(x)
    y = L.LayerNormalization()(x)
    x = L.Add()([x, L.MultiHeadAttention(3, 8)(y, y)])
    y = L.LayerNormalization()(x)
    x = L.Add()([x, L.Dense(24, name="trunk_2")(L.Dense(48, activation, name="trunk_1")(y))])
    return L.LayerNormalization()(x)


def _lstm_trunk(x: Any, activation: str) -> Any:
    x = L.LSTM(24, activation=activation, return_sequences=True, name="trunk_0")(x)
    return L.LSTM(24, activation=activation, return_sequences=True, name="trunk_1")(x)


ARCHITECTURES = {
    "MLP relu": Architecture("relu", "flat", dense_trunk, 5),
    "MLP tanh": Architecture("tanh", "flat", dense_trunk, 5),
    "MLP sigmoid": Architecture("sigmoid", "flat", dense_trunk, 5),
    "CNN": Architecture("relu", "image", _cnn_trunk(norm=False), 3),
    "CNN batch norm": Architecture("relu", "image", _cnn_trunk(norm=True), 3),
    "ResNet": Architecture("relu", "image", _resnet_trunk, 5),
    "transformer": Architecture("gelu", "rows", _transformer_trunk, 3),
    "LSTM": Architecture("tanh", "rows", _lstm_trunk, 2),
}


def build(name: str, variant: Variant = SOUND) -> keras.Model:
    """A compiled model of an architecture."""
    architecture = ARCHITECTURES[name]
    activation = variant.squash or architecture.activation
    shape = {"flat": (64,), "image": (8, 8, 1), "rows": (8, 8)}[architecture.data]
    x = given = keras.Input(shape)
    if variant.wrong_fans and len(shape) == 1:
        x = L.Flatten()(L.DepthwiseConv1D(3, padding="same", name="wrong")(L.Reshape((8, 8))(x)))
    x = architecture.trunk(x, activation)
    if variant.wrong_fans and len(shape) > 1:
        depthwise = L.DepthwiseConv2D if len(shape) == 3 else L.DepthwiseConv1D
        x = depthwise(3, padding="same", name="wrong")(x)
    x = L.Flatten()(x) if len(x.shape) > 2 else x
    x = StopGradient()(x) if variant.stop else x
    for number in range(variant.deep):
        x = L.Dense(32, activation, name=f"deep_{number}")(x)
    features = variant.features or features_of(name)
    x = L.Dense(32, features, kernel_initializer=_suited(features), name="features")(x)
    if variant.one_unit:
        x, loss = L.Dense(1, "softmax", name="logits")(x), "binary_crossentropy"
    else:
        x, loss = L.Dense(10, name="logits")(x), FROM_LOGITS
    model = keras.Model(given, x)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    return model


def _suited(activation: str) -> Any:
    """What a layer with this activation is soundly drawn by."""
    if activation == "sigmoid":  # Glorot and Bengio 2010 for tanh, times 4: the slope of a sigmoid is 1/4
        return INITIALIZERS.VarianceScaling(16.0, "fan_avg", "uniform")
    return "he_normal" if activation == "relu" else "glorot_uniform"


def features_of(name: str) -> str:
    """Activation of the features of an architecture."""
    return "relu" if name not in ("MLP tanh", "MLP sigmoid") else ARCHITECTURES[name].activation
