"""What attention reads: the inputs whose positions it has, tokens, and the kernels of its queries, keys and values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from keras_initkit.structure._attentions import Attention
from keras_initkit.structure._graph import Call, Tensor, makers, signals
from keras_initkit.structure._layer_kinds import moves, multiplies
from keras_initkit.structure._product_letters import product_letters


def follow_positions(found: Sequence[Call], attentions: Sequence[Attention]) -> Mapping[Tensor, frozenset[Tensor]]:
    """Returns for each tensor the inputs of the model whose positions it has.

    An attention's output has those of its queries. Integers count only where they are looked up in a table, so that a
    mask leaves no trace.
    """
    positions: dict[Tensor, frozenset[Tensor]] = {tensor: frozenset({tensor}) for tensor in found[-1].inputs}
    queries = {id(attention.product): attention.query for attention in attentions}
    for call in found:
        if call.opened:
            continue
        if id(call) in queries:
            given = [queries[id(call)]]
        elif all(tensor.is_float for tensor in call.outputs):
            floats = [tensor for tensor in call.inputs if tensor.is_float and tensor in positions]
            looked_up = _looks_up(call)
            given = [*floats, *(each for each in call.inputs if not each.is_float and (looked_up or not floats))]
            if not looked_up and type(call.layer).__name__ == "Cast":
                given = floats
        else:
            given = list(call.inputs)
        origins = frozenset().union(*(positions.get(tensor, frozenset()) for tensor in given))
        for tensor in call.outputs:
            positions[tensor] = origins
    return positions


def token_inputs(found: Sequence[Call]) -> Iterator[Tensor]:
    """Yields the inputs of a model whose numbers, though they may come as floats, are looked up in a table."""
    ids = {tensor: tensor for tensor in found[-1].inputs if len(tensor.shape) == 2}
    seen = set()
    for call in found:
        if call.opened:
            continue
        for tensor in call.inputs:
            if _looks_up(call) and tensor in ids and ids[tensor] not in seen:
                seen.add(ids[tensor])
                yield ids[tensor]
        if len(call.inputs) == 1 and call.inputs[0] in ids and moves(call.layer):
            ids.update(dict.fromkeys(call.outputs, ids[call.inputs[0]]))


class KernelsBefore(NamedTuple):
    """Kernels that a tensor is the product of, and whether no gradient reaches them."""

    variables: list[Any]
    stopped: bool


def kernels_before(found: Sequence[Call], tensor: Tensor) -> KernelsBefore:
    """Returns the nearest kernels on the way back from a tensor, such as those of an attention's queries."""
    made_by = makers(found)
    moving = signals(found)
    waiting, seen, variables, stopped = [tensor], set(), [], False
    while waiting:
        each = waiting.pop()
        call = made_by.get(each)
        if call is None or each in seen:
            continue
        seen.add(each)
        stopped = stopped or type(call.layer).__name__ == "StopGradient"
        held = list(call.layer.weights) if isinstance(call.layer, keras.Layer) else []
        held += [other.variable for other in call.inputs if other.variable is not None and multiplies(call.layer)]
        kernels = sorted((each for each in held if len(each.shape) > 1), key=lambda each: -math.prod(each.shape))
        kernels = kernels[:1]  # an adapter beside it is smaller
        if kernels or product_letters(call) is not None:
            variables += kernels
            if not kernels and len(moving.intersection(call.inputs)) == 1:  # a weight that was reshaped before
                sides = [other for other in call.inputs if other not in moving]
                waiting += sides
        elif each in moving:
            waiting += [other for other in call.inputs if other in moving and other.is_float]
        else:
            variables += [other.variable for other in call.inputs if other.variable is not None]
            waiting += [other for other in call.inputs if other.variable is None]
    return KernelsBefore(variables, stopped)


def _looks_up(call: Call) -> bool:
    return isinstance(call.layer, keras.layers.Embedding) or type(call.layer).__name__ in ("Take", "OneHot")
