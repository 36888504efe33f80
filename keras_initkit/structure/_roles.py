"""What each layer of a model does as a whole, by its class or by the calls inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras

from keras_initkit.structure._graph import Call, Tensor, makers, signals
from keras_initkit.structure._layer_kinds import (
    is_activation,
    is_attention,
    is_embedding,
    is_nonlinear,
    is_normalization,
    moves,
    multiplies,
    passes_through,
    shifts_or_scales,
)

LayerRole = Literal["activation", "attention", "embedding", "normalization"]


def normalizes(call: Call) -> bool:
    """Whether a call is a normalization: by what it does, or by its layer's class."""
    return call.role == "normalization" or is_normalization(call.layer)


def layer_roles(found: Sequence[Call]) -> dict[str, LayerRole]:
    """Returns the role of each layer that has one, by path.

    A composite layer is a normalization if normalizations are all that it is made of, but for what moves, adds or
    multiplies by weights; an activation likewise; an attention if it multiplies signals by each other, as no linear
    layer does; an embedding if it makes floats of integers without a kernel.

    Args:
        found: The calls of a model, as `gathered_calls` returns them.
    """
    moving = signals(found)
    inside: dict[str, list[Call]] = {call.path: [] for call in found if call.opened}
    for call in found:
        if not call.opened:
            path = call.path
            while (path := path.rpartition("/")[0]) and path in inside:
                inside[path].append(call)
    roles: dict[str, LayerRole] = {}
    for call in found[:-1]:  # the last is the model
        parts = inside.get(call.path, [call])
        role = _role(call, parts, moving)
        if role is not None:
            roles.setdefault(call.path, role)
    return roles


def nonlinear_layers(found: Sequence[Call]) -> set[str]:
    """Returns the paths of layers whose last step is an activation."""
    made_by = makers(found)
    bent = set()
    for call in found:
        tensors = list(call.outputs)
        while tensors:
            maker = made_by.get(tensors.pop())
            if maker is None:
                continue
            if maker.role == "activation" or (len(maker.inputs) == 1 and is_nonlinear(maker.layer)):
                bent.add(call.path)
            elif call.opened and (moves(maker.layer) or passes_through(maker.layer)):
                tensors += maker.inputs
    return bent


def _role(call: Call, parts: Sequence[Call], moving: set[Tensor]) -> LayerRole | None:
    kinds: tuple[tuple[LayerRole, Callable[[Any], bool]], ...]
    kinds = ("normalization", is_normalization), ("activation", is_activation)
    for role, known in kinds:
        own = [each for each in parts if each.role == role or known(each.layer)]
        if own and all(each in own or moves(each.layer) or _is_gain(each, moving) for each in parts):
            return role
    if any(is_attention(each.layer) or _multiplies_signals(each, moving) for each in [call, *_children(call, parts)]):
        return "attention"
    looked_up = call.opened and parts and call.inputs and not any(tensor.is_float for tensor in call.inputs)
    if is_embedding(call.layer) or (looked_up and all(_has_no_kernel(each) for each in parts)):
        return "embedding"
    return None


def _is_gain(call: Call, moving: set[Tensor]) -> bool:
    """Whether a call adds or multiplies by a weight or number, or only prepares one."""
    count = sum(tensor in moving for tensor in call.inputs)
    return count == 0 or (count == 1 and shifts_or_scales(call.layer))


def _children(call: Call, parts: Sequence[Call]) -> list[Call]:
    return [each for each in parts if each.path.rpartition("/")[0] == call.path]


def _multiplies_signals(call: Call, moving: set[Tensor]) -> bool:
    return multiplies(call.layer) and sum(tensor in moving for tensor in call.inputs) > 1


def _has_no_kernel(call: Call) -> bool:
    if isinstance(call.layer, keras.Layer):
        return is_embedding(call.layer) or passes_through(call.layer)
    return not multiplies(call.layer)
