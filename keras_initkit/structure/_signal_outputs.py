"""Which outputs of a layer are signals: masks and scores that it returns beside them are none."""

from __future__ import annotations

from collections.abc import Sequence

from keras_initkit.structure._graph import Call, Tensor, signals
from keras_initkit.structure._layer_kinds import activation_name, own_activation


def signal_tensors(graph: Sequence[Call]) -> set[Tensor]:
    """Returns the tensors that depend on the model's inputs and that its outputs depend on as data.

    What only goes into a softmax (attention scores, and the masks that are added to them) decides where data come
    from and is none itself.
    """
    used = set(graph[-1].outputs)
    for call in reversed(graph):
        if not call.opened and not used.isdisjoint(call.outputs) and not _is_softmax(call):
            used.update(call.inputs)
    return used & signals(graph)


def _is_softmax(call: Call) -> bool:
    name = type(call.layer).__name__
    if name == "Activation":
        name = activation_name(own_activation(call.layer))
    return name.lower() in ("softmax", "sparsemax", "log_softmax", "logsoftmax")
