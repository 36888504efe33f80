"""Faults, each of one kind at a known layer, in eight architectures on real data.

Layers have the same names in every architecture: `trunk_0`, `trunk_1`, ..., then `features`, a Dense layer that is not
normalised, and `logits`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from diagnosis_models import FROM_LOGITS
from keras import layers as L

INITIALIZERS = keras.initializers


@keras.saving.register_keras_serializable("diagnosis_faults")
class RankOne(INITIALIZERS.Initializer):
    """He's variance, but every column is a multiple of one vector."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        left, right = keras.random.normal((*shape[:-1], 1)), keras.random.normal((shape[-1],))
        return keras.ops.cast(left * right * float(np.sqrt(2 / np.prod(shape[:-1]))), dtype or "float32")


@keras.saving.register_keras_serializable("diagnosis_faults")
class Spoiled(INITIALIZERS.Initializer):
    """Glorot's, with one NaN."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        values = np.array(INITIALIZERS.GlorotUniform()(shape))
        values.flat[0] = np.nan
        return keras.ops.convert_to_tensor(values, dtype or "float32")


class StopGradient(keras.layers.Layer):
    """What a careless `argmax` or a conversion to NumPy does."""

    def call(self, x: Any) -> Any:
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


class Architecture(NamedTuple):
    """A sound model: its activation, its data, its trunk."""

    activation: str
    data: str
    trunk: Callable[[Any, str], Any]
    layers: int


def _dense_trunk(x: Any, activation: str) -> Any:
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
    "MLP relu": Architecture("relu", "flat", _dense_trunk, 5),
    "MLP tanh": Architecture("tanh", "flat", _dense_trunk, 5),
    "MLP sigmoid": Architecture("sigmoid", "flat", _dense_trunk, 5),
    "CNN": Architecture("relu", "image", _cnn_trunk(norm=False), 3),
    "CNN batch norm": Architecture("relu", "image", _cnn_trunk(norm=True), 3),
    "ResNet": Architecture("relu", "image", _resnet_trunk, 5),
    "transformer": Architecture("gelu", "rows", _transformer_trunk, 3),
    "LSTM": Architecture("tanh", "rows", _lstm_trunk, 2),
}


def build(name: str, variant: Variant = Variant()) -> keras.Model:
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
    features = variant.features or _features_of(name)
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


class Fault(NamedTuple):
    """One thing that is wrong with an architecture.

    Args:
        kind: the finding that it calls for.
        layers: the layers that the finding may name.
        variant: how the model is built.
        settings: initializers by layer and attribute.
        inputs: what the data's inputs become.
        rate: factor of the learning rate.
        causes: kinds that name the same fault as well, at the same layers.
        repairable: whether it is the initialization's fault.
    """

    kind: str
    layers: tuple[str, ...] = ()
    variant: Variant = Variant()
    settings: dict[tuple[str, str], Any] = {}
    inputs: Callable[[np.ndarray], np.ndarray] | None = None
    rate: float = 1.0
    causes: tuple[str, ...] = ()
    repairable: bool = True


def faults(name: str) -> dict[str, Fault]:
    """The faults of an architecture, by a name for each."""
    architecture = ARCHITECTURES[name]
    trunk = tuple(f"trunk_{number}" for number in range(architecture.layers))
    dense = architecture.trunk is _dense_trunk
    plain = dense or name == "CNN"  # what a trunk's kernels scale is not normalised away
    middle = trunk[len(trunk) // 2] if plain else "features"
    normal, constant = INITIALIZERS.RandomNormal, INITIALIZERS.Constant
    kernel = (middle, "kernel_initializer")
    bounded = middle if name in ("MLP tanh", "MLP sigmoid") else "features"
    deep = tuple(f"deep_{number}" for number in range(8))
    pair = {("features", "kernel_initializer"): constant(0.1), ("logits", "kernel_initializer"): constant(0.1)}
    every = (*trunk, "wrong", *deep, "features", "logits")
    found = {
        "tiny kernel": Fault(
            "vanishing_activation", (middle,), settings={kernel: normal(stddev=1e-4)}, causes=("initializer_mismatch",)
        ),
        "deep, sigmoid": Fault(
            "vanishing_gradient",
            every,
            Variant("sigmoid", deep=8),
            causes=("vanishing_activation", "initializer_mismatch"),
        ),
        "saturated by kernel": Fault(
            "saturated_units",
            (bounded,),
            Variant(features="tanh" if bounded == "features" else None),
            {(bounded, "kernel_initializer"): normal(stddev=30.0)},
            causes=("initializer_mismatch",),
        ),
        "saturated by bias": Fault(
            "saturated_units",
            (bounded,),
            Variant(features="tanh" if bounded == "features" else None),
            {(bounded, "bias_initializer"): constant(30.0)},
        ),
        "equal weights": Fault("symmetric_units", ("features", "logits"), settings=pair),
        "zero weights": Fault(
            "symmetric_units",
            (*trunk, "features", "logits"),
            settings={(layer, "kernel_initializer"): "zeros" for layer in (*trunk, "features", "logits")},
        ),
        "softmax of one unit": Fault(
            "constant_output", ("logits",), Variant(one_unit=True), causes=("frozen_weights",), repairable=False
        ),
        "kernel of rank one": Fault("rank_collapse", (middle,), settings={kernel: RankOne()}),
        "raw pixels": Fault(
            "unscaled_input", every, inputs=lambda x: (x - x.min()) / np.ptp(x) * 255, repairable=False
        ),
        "RandomNormal(0.01)": Fault(
            "initializer_mismatch", (middle,), settings={kernel: normal(stddev=0.01)}, causes=("vanishing_activation",)
        ),
        "depthwise by Keras' fans": Fault(
            "wrong_fans",
            ("wrong",),
            Variant(wrong_fans=True),
            causes=("initializer_mismatch",),
        ),
        "rate too small": Fault("update_too_small", rate=1e-6, repairable=False),
        "rate too large": Fault("update_too_large", rate=1000.0, repairable=False),
        "no gradient": Fault("frozen_weights", trunk, Variant(stop=True), repairable=False),
        "NaN in a kernel": Fault("nonfinite", (middle,), settings={kernel: Spoiled()}),
    }
    if "relu" in (architecture.activation, _features_of(name)):
        unit = middle if architecture.activation == "relu" else "features"
        found["dead by bias"] = Fault("dead_units", (unit,), settings={(unit, "bias_initializer"): constant(-30.0)})
    large = "features" if not (plain and architecture.activation == "relu") else middle
    if _features_of(name) == "relu":
        found["huge kernel"] = Fault(
            "exploding_activation",
            (large,),
            settings={(large, "kernel_initializer"): normal(stddev=100.0)},
            causes=("initializer_mismatch",),
        )
    wide = {(layer, "kernel_initializer"): normal(stddev=2.0) for layer in deep}
    found["deep, large"] = Fault(
        "exploding_gradient",
        every,
        Variant("relu" if _features_of(name) == "relu" else "tanh", deep=8),
        wide,
        causes=("exploding_activation", "saturated_units", "initializer_mismatch"),
    )
    return found


def _features_of(name: str) -> str:
    """Activation of the features of an architecture."""
    return "relu" if name not in ("MLP tanh", "MLP sigmoid") else ARCHITECTURES[name].activation


def prepare(model: keras.Model, fault: Fault) -> Callable[[], None]:
    """Has the fault's layers draw their weights by its initializers; returns what undoes it."""
    before = {key: getattr(model.get_layer(key[0]), key[1]) for key in fault.settings}
    for (layer, attribute), initializer in fault.settings.items():
        setattr(model.get_layer(layer), attribute, INITIALIZERS.get(initializer))

    def undo() -> None:
        for (layer, attribute), initializer in before.items():
            setattr(model.get_layer(layer), attribute, initializer)

    return undo
