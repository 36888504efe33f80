"""Which outputs of a layer are signals: masks and scores that it returns beside them are none."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_initkit.structure._graph import Call, Tensor, signals
from keras_initkit.structure._layer_kinds import activation_name, own_activation


def signal_tensors(graph: Sequence[Call]) -> set[Tensor]:
    """Returns the tensors that depend on the model's inputs and that its outputs depend on as data.

    What only goes into a softmax (attention scores, and the masks that are added to them) decides where data come
    from and is none itself.
    """
    return _read_by(graph, graph[-1].outputs, through_softmax=False) & signals(graph)


def trains_by_itself(graph: Sequence[Call]) -> bool:
    """Returns whether the losses that a model adds (`add_loss`) depend on all weights that its outputs depend on.

    Those of an endpoint do, that compares logits with labels among the inputs; a divergence that is added to some loss
    of the outputs does not.
    """

    def weighted(tensors: Sequence[Tensor]) -> set[str]:
        read = _read_by(graph, tensors, through_softmax=True)
        return {call.path for call in graph if _has_weights(call) and not read.isdisjoint(call.outputs)}

    return bool(graph[-1].losses) and weighted(graph[-1].outputs) <= weighted(graph[-1].losses)


def _read_by(graph: Sequence[Call], tensors: Sequence[Tensor], through_softmax: bool) -> set[Tensor]:
    """Returns all tensors that some tensors are computed from, and these."""
    read = set(tensors)
    for call in reversed(graph):
        if not call.opened and not read.isdisjoint(call.outputs) and (through_softmax or not _is_softmax(call)):
            read.update(call.inputs)
    return read


def _has_weights(call: Call) -> bool:
    own = isinstance(call.layer, keras.Layer) and not call.opened and bool(call.layer.trainable_weights)
    return own or any(tensor.variable is not None for tensor in call.inputs)


def _is_softmax(call: Call) -> bool:
    name = type(call.layer).__name__
    if name == "Activation":
        name = activation_name(own_activation(call.layer))
    return name.lower() in ("softmax", "sparsemax", "log_softmax", "logsoftmax")
