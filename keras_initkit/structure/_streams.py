"""The residual streams of a model: the sums that follow each other, each adding branches to what the last one made."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_initkit.structure._attentions import Attention
from keras_initkit.structure._graph import Call, Tensor, makers, readers, signals
from keras_initkit.structure._layer_kinds import moves, passes_through, shifts_or_scales
from keras_initkit.structure._patterns import gathered_calls
from keras_initkit.structure._residual import Branch, residual_branches
from keras_initkit.structure._roles import normalizes


class ResidualStreams:
    """The residual branches of a model, by the stream that they are added to.

    Args:
        model: A built Keras model that can be traced.
        attentions: Its attentions. What is added to their scores, as T5's biases of positions are, is no branch.

    Attributes:
        branches: List of `Branch`, in the order of their sums.
        of_branch: List of integers. The stream of each branch, from 0 in the order of the first sums: an encoder and a
            decoder have one each.
    """

    def __init__(self, model: keras.Model, attentions: Sequence[Attention]):
        found = gathered_calls(model)
        self._makers, self._moving = makers(found), signals(found)
        self._sums: dict[Tensor, int] = {}  # the stream of what a residual sum makes
        biased = _score_calls(found, attentions)
        self.branches: list[Branch] = [each for each in residual_branches(model) if id(each.sum) not in biased]
        self.of_branch: list[int] = []
        count = 0
        for branch in self.branches:
            made = branch.sum.outputs[0]
            number = self._sums[made] if made in self._sums else self.of_tensor(branch.stream)
            if number is None:
                number, count = count, count + 1
            self._sums[made] = number
            self.of_branch.append(number)

    def is_sum(self, call: Call) -> bool:
        """Whether a call is a residual sum."""
        return any(tensor in self._sums for tensor in call.outputs)

    def of_tensor(self, tensor: Tensor) -> int | None:
        """Returns the stream that a tensor is, perhaps moved, scaled or normalized; `None` if it is none."""
        for _ in range(30):
            if tensor in self._sums:
                return self._sums[tensor]
            call = self._makers.get(tensor)
            if call is None or not self._keeps(call):
                return None
            tensor = next(each for each in call.inputs if each in self._moving and each.is_float)
        return None

    def _keeps(self, call: Call) -> bool:
        floats = [each for each in call.inputs if each in self._moving and each.is_float]
        known = normalizes(call) or passes_through(call.layer) or moves(call.layer) or shifts_or_scales(call.layer)
        return known and len(floats) == 1


def _score_calls(found: Sequence[Call], attentions: Sequence[Attention]) -> set[int]:
    """Returns the calls between the scores of attentions and their softmax, by identity."""
    ends = {id(attention.softmax) for attention in attentions}
    waiting = [t for attention in attentions if attention.scores is not None for t in attention.scores.outputs]
    after, between = readers(found), set()
    while waiting:
        for call in after.get(waiting.pop(), []):
            if id(call) not in ends and id(call) not in between:
                between.add(id(call))
                waiting += call.outputs
    return between


def other_readers(found: Sequence[Call], branches: Sequence[Branch]) -> dict[int, Call]:
    """Returns the sums that something else than a normalization reads, by identity, and what reads them first.

    None is left of a post-norm transformer, whose sums are normalized before anything else. What only moves, drops
    or casts is looked through.
    """
    read_by = readers(found)
    other: dict[int, Call] = {}
    for branch in branches:
        waiting = list(branch.sum.outputs)
        while waiting:
            after = read_by.get(waiting.pop(), [])
            if not after:
                other.setdefault(id(branch.sum), branch.sum)
            for call in after:
                if normalizes(call):
                    continue
                if moves(call.layer) or passes_through(call.layer):
                    waiting += call.outputs
                else:
                    other.setdefault(id(branch.sum), call)
    return other
