"""The activation that follows a layer in the graph of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from keras_initkit.structure._graph import Call, Tensor, signals
from keras_initkit.structure._kernels import kernels
from keras_initkit.structure._layer_kinds import (
    activation_name,
    applied_activation,
    is_activation,
    is_attention,
    is_opaque,
    moves,
    multiplies,
    passes_through,
    shifts_or_scales,
)
from keras_initkit.structure._layer_paths import named_layers
from keras_initkit.structure._patterns import gathered_calls
from keras_initkit.structure._sublayers import parts_of_kind
from keras_initkit.structure._weights import own_weights
from keras_initkit.theory._activations import evaluate
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
    different activations, a sum or another layer comes first, or the model cannot be traced.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.BatchNormalization(name="bn"),
    ...     layers.ReLU(name="relu"), layers.Dense(2, "softmax", name="b")])
    >>> {path: following.where for path, following in following_activations(model).items() if path in "ab"}
    {'a': 'relu after bn', 'b': 'output'}
    """
    graph = _Graph(model)
    return {path: graph.following(path, layer) for path, layer in named_layers(model).items() if layer is not model}


def rectified_layers(model: keras.Model) -> set[str]:
    """Returns the paths of layers that a separate activation alone reads, with nothing between, which is 0 below 0.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.BatchNormalization(name="b"),
    ...     layers.ReLU(), layers.Dense(2, "relu", name="c"), layers.Dense(1, name="d")])
    >>> rectified_layers(model)
    {'b'}
    """
    return {path for path, each in following_activations(model).items() if each.certain and _rectifies(each)}


def following_products(model: keras.Model, products: Mapping[int, Sequence[Call]]) -> dict[int, Following]:
    """Returns what follows weights that layers multiply in their own `call`, by the same keys as `products`.

    Args:
        model: A built Keras model.
        products: Dictionary with the calls that multiply each of the weights, as in `WeightRoles.products`.
    """
    graph = _Graph(model) if products else None
    return {key: graph.after(made) for key, made in products.items()} if graph else {}


class _Graph:
    """The calls that read each tensor. Composites are replaced by the calls inside them."""

    def __init__(self, model: keras.Model):
        try:
            found = gathered_calls(model)
        except ValueError:  # it cannot be traced
            found = []
        self._calls: dict[str, list[Call]] = {}
        self._readers: dict[Tensor, list[Call]] = {}
        self._uses: dict[int, list[Call]] = {}  # products of weights and signals, by the weight's identity
        self._signals = signals(found)
        for call in found:
            if call.opened:
                continue
            self._calls.setdefault(call.path, []).append(call)
            for tensor in call.inputs:
                self._readers.setdefault(tensor, []).append(call)
                if tensor.variable is not None and multiplies(call.layer):
                    self._uses.setdefault(id(tensor.variable), []).append(call)
        self._inside_attention = parts_of_kind(model, is_attention)

    def following(self, path: str, layer: Any) -> Following:
        if id(layer) in self._inside_attention:
            return Following("linear", "attention")
        own = None if is_activation(layer) else applied_activation(layer)
        made = self._calls_of(path, layer)
        if own is not None and not (made and all(map(self._ends_in_output, made))):
            return _with_gain(own, f"own {activation_name(own)}")
        return self.after(made)

    def after(self, made: Sequence[Call]) -> Following:
        """Returns what follows calls, which are those of one layer or weight."""
        if not made:
            return Following("linear", "no activation, and no graph shows what follows", False)
        if all(map(self._ends_in_output, made)):
            return Following("linear", "output")
        return _agree([each for call in made for tensor in call.outputs for each in self._after(tensor, [])])

    def _calls_of(self, path: str, layer: Any) -> list[Call]:
        """Returns the calls of a layer, or the products of its weights, or the calls of the wrapper that holds it."""
        outer = self._calls.get(path.rpartition("/")[0], [])
        products = [call for weight in own_weights(layer) for call in self._uses.get(id(weight), [])]
        return self._calls.get(path) or products or [call for call in outer if isinstance(call.layer, layers.Wrapper)]

    def _passes(self, reader: Call) -> bool:
        """Whether a call only moves or normalizes what it reads, or adds or multiplies by a weight (a bias, a gain)."""
        if reader.role == "normalization" or passes_through(reader.layer) or moves(reader.layer):
            return True
        return shifts_or_scales(reader.layer) and len(reader.inputs) == 2 and self._moving(reader) == 1

    def _moving(self, reader: Call) -> int:
        """Returns how many of a call's inputs depend on the model's."""
        return sum(tensor in self._signals for tensor in reader.inputs)

    def _ends_in_output(self, call: Call) -> bool:
        """Whether only activations, reshapes and the like come between a call and the model's outputs."""
        waiting = list(call.outputs)
        while waiting:
            for reader in self._readers.get(waiting.pop(), []):
                known = self._passes(reader) or is_activation(reader.layer) or self._function(reader) is not None
                if not known and type(reader.layer).__name__ not in ("Softmax", "LogSoftmax"):
                    return False
                waiting.extend(reader.outputs)
        return True

    def _after(self, tensor: Tensor, passed: list[str]) -> list[Following]:
        """Return what the readers of a tensor do with it first."""
        return [each for reader in self._readers.get(tensor, []) for each in self._first(reader, passed)]

    def _function(self, reader: Call) -> Callable | None:
        """Returns the function of one tensor that operations compute by elements; `None` if they do something else."""
        if reader.function is not None:
            return reader.function
        if isinstance(reader.layer, layers.Layer) or len(reader.inputs) != 1:
            return None
        try:
            gain(reader.layer)
        except Exception:  # of any kind: it was called on numbers that it was not made for
            return None
        return reader.layer

    def _first(self, reader: Call, passed: list[str]) -> list[Following]:
        layer = reader.layer
        through = f" after {', '.join(passed)}" if passed else ""
        function = applied_activation(layer) if is_activation(layer) else self._function(reader)
        if function is not None:
            return [_with_gain(function, f"{activation_name(function)}{through}")]
        rescaled = shifts_or_scales(layer) and self._moving(reader) == 1 == len(reader.inputs)
        if not (is_activation(layer) or self._passes(reader) or rescaled):
            return [self._end(reader)]
        inside = [each for tensor in reader.outputs for each in self._after(tensor, [*passed, reader.path])]
        if rescaled and not all(each.where == "attention" for each in inside):
            return [self._end(reader)]  # a number changes what an activation makes of its input
        return inside or [Following("linear", "output")]

    def _end(self, reader: Call) -> Following:
        """Returns what a call does that neither is an activation nor passes its input on."""
        if isinstance(reader.layer, layers.Layer) and _has_kernel(reader.layer):
            return Following("linear", f"{reader.path}, a kernel")
        if multiplies(reader.layer):
            return Following("linear", f"{reader.path}, a kernel" if self._moving(reader) == 1 else "attention")
        return Following("linear", f"no activation before {reader.path}", False)


def _rectifies(following: Following) -> bool:
    if following.where != activation_name(following.activation):  # "own relu", "relu after bn", "output"
        return False
    return not np.any(evaluate(following.activation, np.array([-3.0, -1.0, -0.1])))


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
