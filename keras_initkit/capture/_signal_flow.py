"""What a report is told of the model that it was measured on: what each layer reads, and how its signal is judged."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence

import keras
import numpy as np

from keras_initkit.report._flow import LayerFlow
from keras_initkit.structure._calls import traced_once
from keras_initkit.structure._following import rectified_layers
from keras_initkit.structure._graph import Call, Tensor, leaves, readers, signals
from keras_initkit.structure._kernels import kernels_by_layer
from keras_initkit.structure._layer_kinds import (
    applied_activation,
    has_slope_at_zero,
    is_nonlinear,
    is_recurrent,
    output_limits,
)
from keras_initkit.structure._layer_paths import named_layers
from keras_initkit.structure._patterns import gathered_calls
from keras_initkit.structure._reach_of_scale import (
    closed_layers,
    gated_layers,
    gating_layers,
    limits_scale,
    normalized_layers,
    output_layers,
    weighing_gates,
)
from keras_initkit.structure._residual import residual_branches
from keras_initkit.structure._roles import layer_roles, nonlinear_layers, normalizes

_AVERAGING = re.compile("(Adaptive|Global)?AveragePooling[123]D|Mean")
_GATES = {"LSTM": 2, "LSTMCell": 2, "ConvLSTM1D": 2, "ConvLSTM2D": 2, "ConvLSTM3D": 2, "GRU": 1, "GRUCell": 1}


def signal_flow(model: keras.Model, prefix: str = "", in_training: bool = False) -> tuple[LayerFlow, ...]:
    """Returns how the signal flows through a model, layers in the order of their calls.

    Args:
        model: Keras model.
        prefix: String. What stands before the paths of its layers in the report.
        in_training: Boolean. Whether a training step is measured, which counts the units that a separate `ReLU` makes
            zeros of with the layer before it.

    Returns:
        Tuple of `LayerFlow`; empty for a model that cannot be traced, of which a report has to guess.
    """
    with contextlib.suppress(ValueError), traced_once():
        if model.built:
            return _read_flow(model, prefix, in_training)
    return ()


def _read_flow(model: keras.Model, prefix: str, in_training: bool) -> tuple[LayerFlow, ...]:
    graph = gathered_calls(model)
    if not graph:
        return ()
    layers, found = named_layers(model), [call for call in graph[:-1] if isinstance(call.layer, keras.Layer)]
    makers = _layers_behind(graph)
    forward, backward = _scales(graph)
    nonlinear, outputs = nonlinear_layers(graph), output_layers(model, graph)
    gates, in_branch = gated_layers(graph, set(kernels_by_layer(model))), _in_branches(model, graph)
    by_sum, by_gradient = _judged(model, graph, gates, in_branch, outputs)
    renewing = [call for call in graph if normalizes(call) and call.path not in in_branch]
    normalized = {tensor for call in renewing for tensor in call.outputs}
    bends = nonlinear | {path for path, layer in layers.items() if is_nonlinear(layer)}
    can_die = bends | (rectified_layers(model) if in_training else set())
    flows: dict[str, LayerFlow] = {}
    for call in found:
        if call.path in flows or not call.outputs or call.path not in layers:
            continue
        layer, output = layers[call.path], call.outputs[0]
        free = call.path in in_branch or call.path in gates or call.path in outputs or is_recurrent(layer)
        limits = None if free else output_limits(layer)
        bounded = limits is not None and bool(np.isfinite(limits).all())
        reads = dict.fromkeys(path for tensor in call.inputs for path in makers.get(tensor, ()) if path != call.path)
        flows[call.path] = LayerFlow(
            prefix + call.path,
            tuple(prefix + path for path in reads),
            forward.get(output) if call.path in by_sum else None,
            _elements(output) * backward.get(output, 1.0) if call.path in by_gradient else None,
            by_logits=call.path in outputs and applied_activation(layer) is not None,
            units=_units(layer, output),
            can_die=call.path in can_die,
            alive_at_zero=has_slope_at_zero(layer),
            is_gate=call.path in gates,
            can_saturate=call.path not in outputs,
            limits=(float(limits[0]), float(limits[1])) if limits is not None and bounded else None,
            normalized_scale=forward.get(output) if output in normalized else None,
        )
    return tuple(flows.values())


def _judged(
    model: keras.Model, graph: Sequence[Call], gated: set[str], in_branch: set[str], outputs: set[str]
) -> tuple[set[str], set[str]]:
    """Returns the paths of layers whose scale matters, forward and backward.

    Those are kernels, and the sums in which residual branches end. Not where a normalization takes the scale away, in
    branches, which may add next to nothing, at gates and what they weigh, and at embeddings, which make a signal on a
    scale of their own. Forward also not at the output, and a bounded activation in place of the kernel before it. Nor
    at sums from which all ways lead through a normalization: the gradient there grows with depth and does no harm, a
    hundredfold in ResNet50, since kernels before a normalization are as good on any scale.
    """
    kernels = set(kernels_by_layer(model))
    moving, roles = signals(graph), layer_roles(graph)
    sums = {tensor for branch in residual_branches(model) for tensor in branch.sum.outputs}
    streams = {call.path for call in graph[:-1] if sums.intersection(call.outputs)}
    aside = normalized_layers(graph) | in_branch | gated | gating_layers(graph, gated)
    aside |= {call.path for call in graph if not moving.intersection(call.outputs)}
    aside |= {path for path, role in roles.items() if role in ("embedding", "normalization")}
    by_sum = (kernels | streams) - aside
    by_gradient = by_sum - (streams & closed_layers(graph, normalizes))
    by_sum -= streams & closed_layers(graph)
    read_by, bounded = readers(graph), lambda call: limits_scale(call) and call.path not in kernels
    for call in leaves(graph):
        after = [reader for tensor in call.outputs for reader in read_by.get(tensor, [])]
        if call.path in by_sum and after and all(map(bounded, after)):
            by_sum.discard(call.path)
            by_sum |= {reader.path for reader in after} - aside
    return by_sum - outputs, by_gradient & _learning(graph)


def _learning(graph: Sequence[Call]) -> set[str]:
    """Returns the paths of layers that train or come after one that does: others need no gradient."""
    learning: set[Tensor] = set()
    found = set()
    for call in graph:
        trains = getattr(call.layer, "trainable_variables", None) or _has_variable(call)
        if trains or learning.intersection(call.inputs):
            learning.update(call.outputs)
            found.add(call.path)
    return found


def _has_variable(call: Call) -> bool:
    return any(tensor.variable is not None and tensor.variable.trainable for tensor in call.inputs)


def _in_branches(model: keras.Model, graph: Sequence[Call]) -> set[str]:
    """Returns the paths of all layers inside residual branches and inside attention."""
    branches = {call.path for branch in residual_branches(model) for call in branch.calls}
    roles = layer_roles(graph)
    attention = tuple(f"{path}/" for path, role in roles.items() if role == "attention")
    return branches | {path for path in named_layers(model) if f"{path}/".startswith(attention)}


def _layers_behind(graph: Sequence[Call]) -> dict[Tensor, dict[str, None]]:
    """Returns the paths of the layers that have made each tensor, looking through operations that are no layers."""
    found: dict[Tensor, dict[str, None]] = {}
    for call in graph[:-1]:
        if isinstance(call.layer, keras.Layer):
            behind = {call.path: None}
        else:
            behind = {path: None for tensor in call.inputs for path in found.get(tensor, ())}
        for tensor in call.outputs:  # a composite's outputs are those of a layer in it
            found[tensor] = {**found.get(tensor, {}), **behind} if call.opened else behind
    return found


def _scales(graph: Sequence[Call]) -> tuple[dict[Tensor, float], dict[Tensor, float]]:
    """Returns what to multiply a variance by, for what the architecture takes away on the strongest way.

    Each gate of a recurrent layer takes about half of the variance, forward and backward (measured: four layers of LSTM
    leave 1/400, of GRU 1/30), and a sigmoid about 0, half of what it weighs, three quarters. Backward, an average over
    positions divides the sum of squares by their number.
    """
    forward: dict[Tensor, float] = {}
    found, halving = leaves(graph), weighing_gates(graph)

    def lost(call: Call) -> float:
        return 4.0 if call in halving else _lost_in_gates(call)

    for call in found:
        before = min([forward.get(tensor, 1.0) for tensor in call.inputs], default=1.0)
        forward |= dict.fromkeys(call.outputs, before * lost(call))
    backward = dict.fromkeys(graph[-1].outputs, 1.0)
    for call in reversed(found):
        after = min([backward.get(tensor, 1.0) for tensor in call.outputs], default=1.0)
        for tensor in call.inputs:
            scale = after * lost(call) * _averaged(call, tensor)
            backward[tensor] = min(scale, backward.get(tensor, math.inf))
    return forward, backward


def _lost_in_gates(call: Call) -> float:
    names = [each.__name__ for each in type(getattr(call.layer, "layer", call.layer)).__mro__]
    return 2.0 ** next((_GATES[name] for name in names if name in _GATES), 0)


def _averaged(call: Call, read: Tensor) -> float:
    if not _AVERAGING.fullmatch(type(call.layer).__name__) or call.role or not call.outputs:
        return 1.0
    return max(_elements(read) / _elements(call.outputs[0]), 1.0)


def _elements(tensor: Tensor) -> float:
    """Returns the number of elements of a tensor for one example."""
    return float(math.prod(size or 1 for size in tensor.shape[1:]))


def _units(layer: keras.Layer, output: Tensor) -> int | None:
    axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
    return int(output.shape[axis] or 0) or None if len(output.shape) > 1 else None
