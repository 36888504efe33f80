"""Which tensors of a model are read while it trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_initkit.statistics._tap import KINDS, Tap
from keras_initkit.structure._layer_kinds import is_opaque, own_activation


def list_taps(layers: Iterable[str], kinds: Iterable[str]) -> list[Tap]:
    """Returns the taps of these kinds in a fixed order: one for all calls of a layer, one for all its kernels."""
    layers, kinds = list(layers), set(kinds)
    return [Tap(kind, layer) for kind in KINDS if kind in kinds for layer in layers]


def units_last(tap: Tap, layer: keras.layers.Layer, tensors: Sequence[Any]) -> list[Any]:
    """Returns what a tap saw, with the units of a channels-first layer's output on the last axis."""
    if tap.kind != "output" or getattr(layer, "data_format", None) != "channels_first":
        return list(tensors)
    return [keras.ops.moveaxis(x, 1, -1) if len(x.shape) > 2 else x for x in tensors]


def select_activated(layers: Mapping[str, keras.layers.Layer], taps: Iterable[Tap]) -> dict[str, keras.layers.Layer]:
    """Returns the layers whose pre-activations are asked for; warns of those that apply the activation in a loop."""
    asked = {tap.layer for tap in taps if tap.kind.startswith("pre_activation")}
    found = {path: layers[path] for path in layers if path in asked and own_activation(layers[path]) is not None}
    hidden = [path for path, layer in found.items() if is_opaque(layer)]
    if hidden:
        warnings.warn(
            f"pre_activation of {', '.join(map(repr, hidden))}: recurrent and time-distributed layers apply their "
            "activation inside a loop, where it cannot be read; they are left out of these statistics.",
            stacklevel=2,
        )
    return {path: layer for path, layer in found.items() if path not in hidden}
