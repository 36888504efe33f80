"""How far the scale of a layer's output reaches: to the model's output, or to what takes it away."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras

from keras_initkit.structure._following import following_activations
from keras_initkit.structure._graph import Call, leaves, makers, readers, signals
from keras_initkit.structure._layer_kinds import (
    SCALINGS,
    is_nonlinear,
    moves,
    output_limits,
    passes_through,
)
from keras_initkit.structure._roles import normalizes
from keras_initkit.theory._activations import activation_range


def closed_layers(graph: Sequence[Call], ends_scale: Callable[[Call], bool] | None = None) -> set[str]:
    """Returns the paths of layers from which all ways to an output lead through a normalization or a bounded function.

    What is too large there is not so for long; what is not closed adds to the model's output, and to the step.

    Args:
        graph: The calls of a model.
        ends_scale: Called with a call; whether the scale of its input ends there. `None` means a normalization or a
            bounded function, but not the one that makes the model's output.
    """
    ends = set(graph[-1].outputs) if graph else set()
    reach, open_layers = set(ends), set()
    for call in reversed(graph):
        if reach.isdisjoint(call.outputs):
            continue
        if call.opened:
            open_layers.add(call.path)
        elif not (ends_scale(call) if ends_scale else limits_scale(call) and ends.isdisjoint(call.outputs)):
            # What a softmax makes of queries and keys weighs the values alone.
            scores = type(call.layer).__name__ == "DotProductAttention"
            reach.update(call.inputs[2:] if scores else call.inputs)
            open_layers.add(call.path)
    return {call.path for call in graph} - open_layers


def gated_layers(graph: Sequence[Call], with_kernel: set[str]) -> set[str]:
    """Returns the paths of layers whose output is multiplied by another signal: kernels, and activations after them.

    Activations and what only moves or normalizes may come between. Weights that scale a branch are no signals.
    """
    made_by = makers(graph)
    moving, found = signals(graph), set()
    for call in made_by.values():
        factors = [tensor for tensor in call.inputs if tensor in moving]
        if type(call.layer).__name__ not in SCALINGS or call.role or len(factors) < 2:
            continue
        while factors:
            maker = made_by.get(factors.pop())
            if maker is None:
                continue
            found.add(maker.path)
            if maker.path in with_kernel:
                continue
            activation = maker.role == "activation" or (len(maker.inputs) == 1 and is_nonlinear(maker.layer))
            if activation or passes_through(maker.layer) or moves(maker.layer):
                factors += maker.inputs
    return found


def gating_layers(graph: Sequence[Call], gated: set[str]) -> set[str]:
    """Returns the paths of layers whose output reaches the model's only by a bounded gate among the gated layers."""
    return closed_layers(graph, lambda call: call.path in gated and limits_scale(call))


def limits_scale(call: Call) -> bool:
    """Whether what a call returns stays within limits, however large its input is."""
    if normalizes(call) or type(call.layer).__name__ == "Softmax":
        return True
    limits = activation_limits(call)
    return limits is not None and all(map(math.isfinite, limits))


def activation_limits(call: Call) -> tuple[float, float] | None:
    """Returns the range of a call's activation, `None` if it has none."""
    if isinstance(call.layer, keras.Layer):
        return output_limits(call.layer)
    if call.function is not None or is_nonlinear(call.layer):
        return activation_range(call.function or call.layer)
    return None


def weighing_gates(graph: Sequence[Call]) -> set[Call]:
    """Returns the calls that multiply a signal by a gate between 0 and 1, such as a sigmoid's output."""
    made_by, moving, found = makers(graph), signals(graph), set()
    for call in made_by.values():
        factors = [made_by.get(tensor) for tensor in call.inputs if tensor in moving]
        if type(call.layer).__name__ in SCALINGS and not call.role and len(factors) > 1:
            limits = [activation_limits(maker) for maker in factors if maker is not None]
            found |= {call} if (0.0, 1.0) in limits else set()
    return found


def normalized_layers(graph: Sequence[Call]) -> set[str]:
    """Returns the paths of layers whose output is read by normalizations alone."""
    read_by, found = readers(graph), set()
    for call in graph:
        after = [reader for tensor in call.outputs for reader in read_by.get(tensor, [])]
        if after and all(map(normalizes, after)):
            found.add(call.path)
    return found


def output_layers(model: keras.Model, graph: Sequence[Call]) -> set[str]:
    """Returns the paths of layers that end in the model's output, such as the last kernel and a softmax after it."""
    ends = {path for path, each in following_activations(model).items() if each.where == "output"}
    made = set(graph[-1].outputs) if graph else set()
    found = leaves(graph)
    read = {tensor for call in found for tensor in call.inputs}
    heads = [call for call in found if made.intersection(call.outputs)]
    return ends | {call.path for call in heads if read.isdisjoint(call.outputs)}
