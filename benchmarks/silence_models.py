"""Models with kernels where scale is said not to matter, and which kernels those are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers as L


class Place(NamedTuple):
    """Kernels of a model that are scaled together.

    Args:
        model: String. Key of `MODELS`.
        name: String. Where they are, in words.
        pattern: String. Regular expression of the paths of their layers, or of the kernels themselves.
    """

    model: str
    name: str
    pattern: str

    def holds(self, variable: str) -> bool:
        """Whether the variable of that path is one of them."""
        return re.fullmatch(f"({self.pattern})(/kernel)?", variable) is not None


class Model(NamedTuple):
    """How a model is built, and the data set of `diagnosis_data` that it learns."""

    build: Callable[[], keras.Model]
    data: str


def residual(norm: str, conv: bool = False, blocks: int = 4) -> keras.Model:
    """Branches of two kernels; `norm` is "none", "pre", "post" (after the sum) or "inside" (after each kernel)."""
    width, hidden = (16, 16) if conv else (32, 64)
    normalize = (lambda: L.BatchNormalization(momentum=0.9)) if conv else L.LayerNormalization

    def kernel(units: int, name: str, initializer: str = "he_normal", strides: int = 1) -> Any:
        if conv:
            return L.Conv2D(units, 3, strides, "same", kernel_initializer=initializer, name=name)
        return L.Dense(units, kernel_initializer=initializer, name=name)

    given = keras.Input((8, 8, 1) if conv else (64,))
    x = L.ReLU()(kernel(width, "stem", strides=2)(given))
    for block in range(blocks):
        y = normalize()(x) if norm == "pre" else x
        y = kernel(hidden, f"first_{block}")(y)
        y = L.ReLU()(normalize()(y) if norm == "inside" else y)
        y = kernel(width, f"last_{block}", "glorot_normal")(y)
        x = L.Add(name=f"sum_{block}")([x, normalize()(y) if norm == "inside" else y])
        x = normalize()(x) if norm == "post" else x
    x = normalize()(x) if norm == "pre" else x
    x = L.GlobalAveragePooling2D()(x) if conv else x
    return keras.Model(given, L.Dense(10, name="head")(x))


def transformer(norm: str) -> keras.Model:
    """One block of attention and two layers on the rows of an image."""
    given = keras.Input((8, 8))
    x = L.Dense(32, name="stem")(given)
    for part in ("attention", "mlp"):
        y = L.LayerNormalization()(x) if norm == "pre" else x
        if part == "attention":
            y = L.MultiHeadAttention(4, 8, name="attention")(y, y)
        else:
            y = L.Dense(32, name="last")(L.Dense(64, "gelu", name="first")(y))
        x = L.Add(name=f"{part}_sum")([x, y])
        x = L.LayerNormalization()(x) if norm == "post" else x
    x = L.Flatten()(L.LayerNormalization()(x) if norm == "pre" else x)
    return keras.Model(given, L.Dense(10, name="head")(x))


def plain(norm: Callable[[], keras.layers.Layer], conv: bool = False, depth: int = 3) -> keras.Model:
    """Each hidden kernel is normalized before its activation."""
    x = given = keras.Input((8, 8, 1) if conv else (64,))
    for number in range(depth):
        name = f"hidden_{number}"
        x = L.Conv2D(16, 3, 2 if number == 0 else 1, "same", name=name)(x) if conv else L.Dense(32, name=name)(x)
        x = L.ReLU()(norm()(x))
    x = L.Flatten()(x) if conv else x
    return keras.Model(given, L.Dense(10, name="head")(x))


def gated(residual: bool = False) -> keras.Model:
    """Gated linear units, value times sigmoid of the gate (Dauphin et al. 2017)."""
    given = keras.Input((64,))
    x = L.Dense(32, name="stem")(given)
    for number in range(3):
        gate = L.Dense(32, "sigmoid", name=f"gate_{number}")(x)
        y = L.Multiply()([L.Dense(32, name=f"value_{number}")(x), gate])
        x = L.Add(name=f"sum_{number}")([x, y]) if residual else y
    return keras.Model(given, L.Dense(10, name="head")(x))


def recurrent(layer: Callable[..., Any]) -> keras.Model:
    """Two recurrent layers on the rows of an image."""
    given = keras.Input((8, 8))
    x = layer(32, return_sequences=True, name="first")(given)
    return keras.Model(given, L.Dense(10, name="head")(layer(32, name="second")(x)))


def squeeze_and_excite() -> keras.Model:
    """Convolutions whose channels are weighed by what their means say (Hu et al. 2018)."""
    x = given = keras.Input((8, 8, 1))
    for number in range(3):
        strides = 2 if number == 0 else 1
        y = L.Conv2D(16, 3, strides, "same", kernel_initializer="he_normal", name=f"conv_{number}")(x)
        y = L.ReLU()(y)
        gate = L.Dense(8, "relu", name=f"squeeze_{number}")(L.GlobalAveragePooling2D()(y))
        gate = L.Reshape((1, 1, 16))(L.Dense(16, "sigmoid", name=f"excite_{number}")(gate))
        x = L.Multiply()([y, gate])
    return keras.Model(given, L.Dense(10, name="head")(L.GlobalAveragePooling2D()(x)))


def _batch() -> keras.layers.Layer:
    return L.BatchNormalization(momentum=0.9)


MODELS = {
    **{f"residual dense, {norm} norm": Model(lambda n=norm: residual(n), "flat") for norm in ("none", "pre", "post")},
    **{
        f"residual conv, {norm} norm": Model(lambda n=norm: residual(n, True, 3), "image")
        for norm in ("none", "pre", "post", "inside")
    },
    **{f"transformer, {norm} norm": Model(lambda n=norm: transformer(n), "rows") for norm in ("none", "pre", "post")},
    "dense, batch norm": Model(lambda: plain(_batch), "flat"),
    "dense, layer norm": Model(lambda: plain(L.LayerNormalization), "flat"),
    "conv, group norm": Model(lambda: plain(lambda: L.GroupNormalization(4), True), "image"),
    "glu": Model(gated, "flat"),
    "glu, residual": Model(lambda: gated(True), "flat"),
    "lstm": Model(lambda: recurrent(L.LSTM), "rows"),
    "gru": Model(lambda: recurrent(L.GRU), "rows"),
    "squeeze and excite": Model(squeeze_and_excite, "image"),
}

_ONE = {"first kernel of one branch": "first_1", "last kernel of one branch": "last_1"}
_ALL = {"last kernels of all branches": r"last_\d"}
_ATTENTION = {
    "query": "attention/query",
    "value": "attention/value",
    "output of attention": "attention/attention_output",
}
_NORMALIZED = {"one kernel before it": "hidden_1", "all kernels before it": r"hidden_\d"}
_GATES = {"one gate": "gate_1", "all gates": r"gate_\d", "one value": "value_1"}
_EXCITE = {"excite of one": "excite_1", "excite of all": r"excite_\d", "squeeze of all": r"squeeze_\d"}
_RECURRENT = {"kernel of one": r"first/\w+/kernel", "recurrent kernel of one": r"first/\w+/recurrent_kernel"}
_BY_MODEL = (
    ("residual conv, (pre|post|inside)", {"last kernel of one branch": "last_1", **_ALL}),
    ("residual", {**_ONE, **_ALL}),
    ("transformer", _ATTENTION),
    ("(dense|conv),", _NORMALIZED),
    ("glu", _GATES),
    ("squeeze", _EXCITE),
    ("lstm|gru", _RECURRENT),
)
PLACES = [
    Place(model, name, pattern)
    for model in MODELS
    for name, pattern in next(places for known, places in _BY_MODEL if re.match(known, model)).items()
]
