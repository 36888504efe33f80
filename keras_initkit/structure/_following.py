"""The activation that follows a layer in the graph of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers

from keras_initkit.structure._calls import calls
from keras_initkit.structure._graph import Call
from keras_initkit.structure._kernels import kernels
from keras_initkit.structure._layer_kinds import (
    activation_name,
    applied_activation,
    is_activation,
    is_attention,
    is_opaque,
    passes_through,
)
from keras_initkit.structure._layer_paths import named_layers
from keras_initkit.structure._sublayers import parts_of_kind
from keras_initkit.theory._gains import gain


class Following(NamedTuple):
    """The activation that follows a layer's kernel.

    Args:
        activation: An elementwise activation, as `theory.gain` takes it; `"linear"` where there is none.
        where: String. How it was found, for a reader: `"own relu"`, `"relu after bn"`, `"output"`, or why it was not.
        certain: Boolean. Whether the graph settles it. If not, `activation` is the layer's own, or `"linear"`.
    """

    activation: Any
    where: str
    certain: bool = True


def following_activations(model: keras.Model) -> dict[str, Following]:
    """Returns the activation that follows each layer of a model, by path.

    It is the layer's own activation, or else the next one in the graph, looking through normalization, dropout,
    pooling, padding, reshapes and concatenation. The model's outputs count as linear, even under a softmax, and so do
    the projections of attention, and a layer before another kernel. `certain` is False where branches lead to
    different activations, a sum or another layer comes first, or there is no graph.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.BatchNormalization(name="bn"),
    ...     layers.ReLU(name="relu"), layers.Dense(2, "softmax", name="b")])
    >>> {path: following.where for path, following in following_activations(model).items() if path in "ab"}
    {'a': 'relu after bn', 'b': 'output'}
    """
    graph = _Graph(model)
    return {path: graph.following(path, layer) for path, layer in named_layers(model).items() if layer is not model}


class _Graph:
    """The calls that read each tensor. Nested models are replaced by the calls of their layers."""

    def __init__(self, model: keras.Model):
        try:
            found = calls(model)
        except ValueError:  # it has no graph
            found = []
        self._calls: dict[str, list[Call]] = {}
        self._readers: dict[int, list[Call]] = {}
        made: set[int] = set()
        for call in found:
            outputs = {tensor.number for tensor in call.outputs}
            if isinstance(call.layer, keras.Model) and outputs <= made:
                continue
            made |= outputs
            self._calls.setdefault(call.path, []).append(call)
            for tensor in call.inputs:
                self._readers.setdefault(tensor.number, []).append(call)
        self._inside_attention = parts_of_kind(model, is_attention)

    def following(self, path: str, layer: Any) -> Following:
        if id(layer) in self._inside_attention:
            return Following("linear", "attention")
        own = None if is_activation(layer) else applied_activation(layer)
        made = self._calls_of(path)
        if made and all(self._ends_in_output(call) for call in made):
            return Following("linear", "output")
        if own is not None:
            return _with_gain(own, f"own {activation_name(own)}")
        if not made:
            return Following("linear", "no activation, and no graph shows what follows", False)
        return _agree([each for call in made for tensor in call.outputs for each in self._after(tensor.number, [])])

    def _calls_of(self, path: str) -> list[Call]:
        """Returns the calls of a layer, or else of the wrapper that holds it."""
        outer = self._calls.get(path.rpartition("/")[0], [])
        return self._calls.get(path) or [call for call in outer if isinstance(call.layer, layers.Wrapper)]

    def _ends_in_output(self, call: Call) -> bool:
        """Whether only activations, reshapes and the like come between a call and the model's outputs."""
        waiting = [tensor.number for tensor in call.outputs]
        while waiting:
            for reader in self._readers.get(waiting.pop(), []):
                if not (is_activation(reader.layer) or passes_through(reader.layer)):
                    return False
                waiting.extend(tensor.number for tensor in reader.outputs)
        return True

    def _after(self, number: int, passed: list[str]) -> list[Following]:
        """Returns what the readers of a tensor do with it first."""
        found = []
        for reader in self._readers.get(number, []):
            found.extend(self._first(reader, passed))
        return found

    def _first(self, reader: Call, passed: list[str]) -> list[Following]:
        layer = reader.layer
        through = f" after {', '.join(passed)}" if passed else ""
        if is_activation(layer):
            function = applied_activation(layer)
            if function is not None:
                return [_with_gain(function, f"{activation_name(function)}{through}")]
        elif isinstance(layer, layers.Layer) and not passes_through(layer):
            if _has_kernel(layer):
                return [Following("linear", f"{reader.path}, a kernel")]
            return [Following("linear", f"no activation before {reader.path}", False)]
        elif not isinstance(layer, layers.Layer):  # an operation: an activation, if it maps one tensor by elements
            try:
                if len(reader.inputs) != 1:
                    raise ValueError("it has several inputs")
                factor = gain(layer)
            except Exception:  # of any kind: it was called on numbers that it was not made for
                return [Following("linear", f"no activation before {reader.path}", False)]
            if abs(factor - 1) > 1e-6:
                return [Following(layer, f"{activation_name(layer)}{through}")]
        inside = [each for tensor in reader.outputs for each in self._after(tensor.number, [*passed, reader.path])]
        return inside or [Following("linear", "output")]


def _with_gain(activation: Callable, where: str) -> Following:
    try:
        gain(activation)
    except ValueError:
        return Following("linear", f"{where}, which has no gain", False)
    return Following(activation, where)


def _agree(found: list[Following]) -> Following:
    """Returns the activation that all branches lead to."""
    if not found:
        return Following("linear", "output")
    if all(each.certain for each in found) and len({round(gain(each.activation), 6) for each in found}) == 1:
        return found[0]
    places = list(dict.fromkeys(each.where for each in found))
    return Following("linear", f"branches disagree: {', '.join(places)}" if len(places) > 1 else places[0], False)


def _has_kernel(layer: Any) -> bool:
    """Whether a layer, or a part of it, has a kernel."""
    return is_opaque(layer) or (layer.built and bool(kernels(layer)))
