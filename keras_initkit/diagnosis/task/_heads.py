"""What makes each output of a model: its last activation, and what lies between that and the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.structure._graph import Call, Tensor, makers, signals
from keras_initkit.structure._layer_kinds import (
    activation_name,
    applied_activation,
    is_activation,
    moves,
    multiplies,
    own_activation,
    passes_through,
    shifts_or_scales,
)
from keras_initkit.structure._patterns import gathered_calls
from keras_initkit.structure._roles import normalizes
from keras_initkit.theory._activations import activation_range, keras_name

UNBOUNDED = (-math.inf, math.inf)
_DROPOUTS = (keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.AlphaDropout)
_SCALING = (keras.layers.Rescaling, keras.layers.Normalization)
_JOINING = ("Concatenate", "Stack", "Average", "Maximum")
_RISING = ("sigmoid", "tanh", "relu", "elu", "selu", "leaky_relu", "softplus", "softsign", "exponential")
_ENDLESS = 100  # calls behind an output that are looked at


@dataclass(frozen=True, eq=False)
class Head:
    """What makes an output.

    Args:
        path: String. Path of the layer that applies the last activation, or that sums up the output without one.
        layer: That layer or operation.
        activation: String. Name of the activation as Keras has it, whoever wrote it: `"softmax"`, `"linear"`, ...;
            empty where it is not known.
        limits: Tuple of the least and the largest number that it can give; `None` where they are not known.
        shape: Tuple of integers. Shape of the output.
        normalized_units: Integer. Number of units that a softmax is over; `None` of other activations.
        has_own_activation: Boolean. Whether the activation is that of a layer with a kernel.
        known_to_keras: Boolean. Whether it is Keras' own softmax or sigmoid, which TensorFlow's losses look behind.
        before: Tuple of `Call`. Dropouts and normalizations between the last kernel and the activation.
        after: Tuple of `Call`. Dropouts and normalizations between the activation and the output.
        trains: Boolean. Whether the last weights before the output are trained.
        over_units: Boolean. Whether a softmax sums over the units, the last axis.
        argument: `Head`. The activation, of another layer or operation, that this one is applied to, if there is one;
            `limits` are then those of both.
    """

    path: str
    layer: Any
    activation: str
    limits: tuple[float, float] | None
    shape: tuple[Any, ...]
    normalized_units: int | None = None
    has_own_activation: bool = False
    known_to_keras: bool = False
    before: tuple[Call, ...] = ()
    after: tuple[Call, ...] = ()
    trains: bool = True
    over_units: bool = True
    argument: Head | None = None

    @property
    def units(self) -> int | None:
        """Size of the output's last axis."""
        return self.shape[-1] if len(self.shape) > 1 else None


def find_heads(graph: Sequence[Call]) -> list[Head]:
    """Returns the head of each output, in the order of the outputs, from the calls of `gathered_calls`."""
    if not graph:
        return []
    behind = _Behind(graph)
    return [replace(behind.head(tensor), shape=tensor.shape) for tensor in graph[-1].outputs]


class _Behind:
    """Walks back from the outputs of a model."""

    def __init__(self, graph: Sequence[Call]):
        self._makers = makers(graph)
        self._signals = signals(graph)

    def head(self, tensor: Tensor) -> Head:
        after: list[Call] = []
        for _ in range(_ENDLESS):
            call = self._makers.get(tensor)
            if call is None:
                break
            made = self._activation(call)
            if made is not None:
                made = self._of_argument(made, call)
                if is_normalization_call(after):
                    made = replace(made, limits=UNBOUNDED)
                before, trains = self._before(call, made.has_own_activation)
                return replace(made, after=tuple(after), before=before, trains=trains)
            moving = [each for each in call.inputs if each in self._signals]
            if not moving:
                break
            if is_between(call):
                after.append(call)
            elif type(call.layer).__name__ in _JOINING and len(moving) > 1:
                return replace(self._agreed(moving), after=tuple(after))
            elif len(moving) == 1 and (shifts_or_scales(call.layer) or isinstance(call.layer, _SCALING)):
                inner = self.head(moving[0])
                return inner if inner.activation == "linear" else _unknown(call)
            elif shifts_or_scales(call.layer) or isinstance(call.layer, keras.layers.Add):
                inner = self._agreed(moving)
                return inner if inner.activation == "linear" else _unknown(call)
            elif not (moves(call.layer) or passes_through(call.layer) or _only_unwraps(call)):
                return _unknown(call)
            tensor = moving[0]
        return _unknown(call)

    def _of_argument(self, made: Head, call: Call) -> Head:
        """Narrows the limits of a separate activation to what the activation before it lets through."""
        moving = [each for each in call.inputs if each in self._signals]
        if made.has_own_activation or made.activation == "linear" or len(moving) != 1:
            return made
        inner = self.head(moving[0])
        if inner.activation in ("linear", "") or inner.limits is None:
            return made
        return replace(made, argument=inner, limits=_limits_over(made, inner.limits))

    def _agreed(self, tensors: Sequence[Tensor]) -> Head:
        heads = [self.head(each) for each in dict.fromkeys(tensors)]
        same = len({each.activation for each in heads}) == 1 and all(each.limits == heads[0].limits for each in heads)
        return heads[-1] if same else replace(heads[-1], activation="", limits=None, normalized_units=None)

    def _activation(self, call: Call) -> Head | None:
        """Returns the head that a call makes, if it applies an activation or multiplies by a kernel."""
        layer = call.layer
        shape = call.outputs[0].shape
        while isinstance(layer, keras.layers.Wrapper):
            layer = layer.layer
        if call.role == "normalization":
            maker = self._makers.get(call.inputs[0])
            if maker is not None and type(maker.layer).__name__ == "Exp":  # a softmax that is written out
                return Head(call.path, layer, "softmax", (0.0, 1.0), shape, shape[-1])
            return None
        if isinstance(layer, keras.Model):  # in a TimeDistributed
            heads = find_heads(_graph_of(layer))
            return replace(heads[0], path=f"{call.path}/{heads[0].path}") if len(heads) == 1 else None
        if isinstance(layer, keras.layers.Bidirectional):
            if layer.merge_mode not in ("concat", "ave"):
                return _unknown(call)
            layer = layer.forward_layer
        function, axis = call.function, getattr(layer, "axis", -1)
        if function is None and isinstance(layer, keras.Layer):
            if is_activation(layer):
                function = layer if own_activation(layer) is None else own_activation(layer)
            elif hasattr(layer, "activation"):
                function = own_activation(layer) or keras.activations.linear
                axis = -1
        elif function is None and multiplies(layer):
            return Head(call.path, layer, "linear", UNBOUNDED, shape)
        elif function is None and len(call.inputs) == 1 and not moves(layer):
            function = layer if _applies_activation(layer) else None
        if function is None:
            return None
        name, limits = describe_activation(function)
        units, over_units = None, True
        if name in ("softmax", "log_softmax"):
            axes = axis if isinstance(axis, list | tuple) else (axis,)
            over_units = any(isinstance(each, int) and each in (-1, len(shape) - 1) for each in axes)
            sizes = [shape[each] for each in axes if isinstance(each, int) and abs(each) <= len(shape)]
            units = math.prod(sizes) if sizes and None not in sizes else None
        own = isinstance(layer, keras.Layer) and not is_activation(layer)
        inner = layer.activation if isinstance(layer, keras.layers.Activation) else function
        known = isinstance(inner, keras.layers.Softmax) or keras_name(inner) in ("softmax", "sigmoid")
        return Head(call.path, layer, name, limits, shape, units, own, known, over_units=over_units)

    def _before(self, call: Call, has_own_activation: bool) -> tuple[tuple[Call, ...], bool]:
        """Returns what lies between the last kernel and its activation, and whether that kernel is trained."""
        found: list[Call] = []
        at: Call | None = call
        for _ in range(_ENDLESS):
            if at is None:
                break
            weights = [each.variable for each in at.inputs if each.variable is not None]
            weights += at.layer.trainable_weights if isinstance(at.layer, keras.Layer) else []
            if weights and not (is_between(at) or is_activation(at.layer)):
                return tuple(found), any(each.trainable for each in weights)
            frozen = isinstance(at.layer, keras.Layer) and bool(at.layer.weights) and not is_between(at)
            if (frozen and at is not call) or (has_own_activation and at is call):
                return tuple(found), not frozen
            if at is not call and is_between(at):
                found.append(at)
            moving = [each for each in at.inputs if each in self._signals]
            at = self._makers.get(moving[0]) if moving else None
        return (), True


def _limits_over(head: Head, argument: tuple[float, float]) -> tuple[float, float] | None:
    """Returns the limits of an activation whose argument has limits."""
    low, high = argument
    if head.activation == "softmax" and head.normalized_units:  # of n units one is at an end, the others at the other
        others, width = head.normalized_units - 1, min(high - low, 700.0)
        return 1 / (1 + others * math.exp(width)), 1 / (1 + others * math.exp(-width))
    if head.activation not in _RISING or head.limits is None:
        return head.limits
    rising = getattr(keras.activations, head.activation)
    ends = to_numpy(rising(keras.ops.convert_to_tensor(np.clip(argument, -1e3, 1e3).astype("float32"))))
    return (
        float(ends[0]) if math.isfinite(low) else head.limits[0],
        float(ends[1]) if math.isfinite(high) else head.limits[1],
    )


def is_between(call: Call) -> bool:
    """Whether a call is a dropout or a normalization."""
    return isinstance(call.layer, _DROPOUTS) or normalizes(call)


def is_normalization_call(found: Sequence[Call]) -> bool:
    """Whether one of some calls of `is_between` normalizes."""
    return any(not isinstance(each.layer, _DROPOUTS) for each in found)


def describe_activation(function: Callable | keras.Layer) -> tuple[str, tuple[float, float] | None]:
    """Returns an activation's name and limits; a function that computes what one of Keras' own does has its name."""
    layer = function if isinstance(function, keras.Layer) else None
    if isinstance(layer, keras.layers.Activation):
        return describe_activation(layer.activation)
    name = keras_name(function) or {"Softmax": "softmax", "LogSoftmax": "log_softmax"}.get(type(function).__name__, "")
    applied = function if layer is None or name else applied_activation(layer)
    name = name or _known_as(applied)
    if name in ("softmax", "sparsemax"):
        return name, (0.0, 1.0)
    if name == "log_softmax":
        return name, (-math.inf, 0.0)
    try:
        limits = activation_range(applied)
    except Exception:  # whatever a user's function raises on four numbers
        return name, None
    return name or activation_name(function).lower(), limits


def _known_as(function: Any) -> str:
    """Returns the name of the activation of Keras that a function computes, on a few numbers."""
    z = np.linspace(-3.0, 3.0, 13, dtype="float32")[None]
    try:
        values = to_numpy(keras.ops.convert_to_tensor(function(keras.ops.convert_to_tensor(z))))
    except Exception:  # of any kind: it was called on numbers that it was not made for
        return ""
    spread = np.exp(z) / np.exp(z).sum()
    known: Mapping[str, np.ndarray] = {
        "softmax": spread,
        "log_softmax": np.log(spread),
        "sigmoid": 1 / (1 + np.exp(-z)),
        "tanh": np.tanh(z),
        "relu": np.maximum(z, 0),
        "linear": z,
    }
    return next(
        (name for name, each in known.items() if values.shape == each.shape and np.allclose(values, each, atol=1e-5)),
        "",
    )


def _applies_activation(operation: Any) -> bool:
    name = type(operation).__name__
    if name in ("Softmax", "LogSoftmax"):
        return True
    try:
        return activation_range(operation) != UNBOUNDED
    except Exception:  # it is no function of one tensor by elements
        return False


def _only_unwraps(call: Call) -> bool:
    """Whether a call is a layer without weights that changes nothing, such as an identity."""
    return type(call.layer).__name__ in ("Identity", "Dropout", "ConvertToTensor", "Copy")


def _graph_of(model: keras.Model) -> list[Call]:
    try:
        return gathered_calls(model)
    except ValueError:
        return []


def _unknown(call: Call | None) -> Head:
    return Head(call.path if call else "", call.layer if call else None, "", None, ())
