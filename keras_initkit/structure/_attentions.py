"""The attentions of a model: averages of values, weighed by a softmax over products of queries and keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_initkit.structure._graph import Call, Tensor, makers, signals
from keras_initkit.structure._layer_kinds import moves, multiplies
from keras_initkit.structure._product_letters import product_letters

_ON_WEIGHTS = ("Dropout", "Multiply", "Where", "Divide", "TrueDivide", "Add", "Maximum")
_ON_SCORES = (*_ON_WEIGHTS, "Subtract", "Minimum", "Tanh", "Clip", "Negative", "LeakyRelu", "Softmax")


@dataclass(frozen=True, eq=False)
class Attention:
    """An attention: scores of queries and keys, their softmax, and the average of the values.

    Args:
        path: String. The innermost layer that holds all of it; the operation that averages where no layer does.
        index: Integer. Number among the attentions of this path, from 0.
        product: The call that averages the values; of a fused attention the only one.
        query: Tensor. What the scores are computed from.
        key: Tensor. As above.
        value: Tensor. What is averaged.
        weights: Tensor. The factor of `product` that weighs; `None` of a fused attention.
        logits: Tensor. What the softmax is applied to.
        scores: The call that multiplies queries by keys.
        softmax: The call that makes weights of logits; the division, where it is written out.
        between: Tuple of `Call`. From the scores to the logits: scales, masks and biases.
        axes: Letters of the weights, and among them those of the queries and the keys, `"bhqk"`, `"q"`, `"k"`.
        aligned: Boolean. Whether weights, logits and scores have the same layout.
    """

    path: str
    index: int
    product: Call
    query: Tensor
    key: Tensor
    value: Tensor
    weights: Tensor | None = None
    logits: Tensor | None = None
    scores: Call | None = None
    softmax: Call | None = None
    between: tuple[Call, ...] = ()
    axes: tuple[str, str, str] = ("bhqk", "q", "k")
    aligned: bool = True

    @property
    def mask(self) -> Any:
        """The mask that the softmax itself is given; `None` without any."""
        if self.softmax is None:
            return None
        given = [*self.softmax.args[1:], self.softmax.kwargs.get("mask")]
        return next((each for each in given if each is not None and not isinstance(each, int | float)), None)


def find_attentions(found: Sequence[Call]) -> list[Attention]:
    """Returns the attentions among a model's calls, in the order of the forward pass.

    Args:
        found: The calls of a model, as `calls` returns them.

    Example:

    >>> from keras_initkit.structure._calls import calls
    >>> x = keras.Input((5, 8))
    >>> model = keras.Model(x, keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x))
    >>> [attention.path for attention in find_attentions(calls(model))]
    ['attention']
    """
    graph = _Graph(found)
    counts: dict[str, int] = {}
    attentions = []
    for call in found:
        attention = None if call.opened else graph.attention(call)
        if attention is not None:
            index = counts.get(attention["path"], 0)
            counts[attention["path"]] = index + 1
            attentions.append(Attention(index=index, **attention))
    return attentions


class _Graph:
    """The maker of each tensor, composites being replaced by the calls inside them."""

    def __init__(self, found: Sequence[Call]):
        self._found = found
        self._places = {id(call): place for place, call in enumerate(found)}
        self._makers = makers(found)
        self._moving = signals(found)
        self._inside = {call.path for call in found if call.opened} - {found[-1].path if found else ""}

    def attention(self, call: Call) -> dict[str, Any] | None:
        """Returns the fields of the attention that ends in a call, if one does."""
        if type(call.layer).__name__ == "DotProductAttention" and len(call.args) >= 3:
            query, key, value = call.args[:3]
            return {"path": self._holder(call), "product": call, "query": query, "key": key, "value": value}
        letters = product_letters(call) if self._is_product(call) else None
        if letters is None:
            return None
        for place in (0, 1):
            weights, value = call.inputs[place], call.inputs[1 - place]
            made = self._softmax(weights)
            if made is None:
                continue
            softmax, logits, moved = made
            scores, moved_before = self._scores(logits)
            of_weights, of_value = letters[place], letters[1 - place]
            axes = _axes(of_weights, of_value, letters.out, weights)
            if scores is None or axes is None:
                continue
            query, key, kept = _roles(scores, softmax, axes, moved or moved_before)
            return {
                "path": self._holder(scores, softmax, call),
                "product": call,
                "query": query,
                "key": key,
                "value": value,
                "weights": weights,
                "logits": logits,
                "scores": scores,
                "softmax": softmax,
                "between": self._between(scores, logits),
                "axes": kept,
                "aligned": not (moved or moved_before),
            }
        return None

    def _is_product(self, call: Call) -> bool:
        known = multiplies(call.layer) or isinstance(call.layer, keras.layers.Dot)
        return known and len(call.inputs) == 2 and self._moving.issuperset(call.inputs)

    def _softmax(self, weights: Tensor) -> tuple[Call, Tensor, bool] | None:
        """Returns the softmax that a tensor comes from, its input, and whether axes were moved since."""
        moved, tensor = False, weights
        for _ in range(12):
            call = self._makers.get(tensor)
            if call is None or not call.inputs:
                return None
            if _is_softmax(call):
                return call, call.inputs[0], moved
            written = self._written_out(call)
            if written is not None:
                return call, written, moved
            name = type(call.layer).__name__
            if not (moves(call.layer) or name in _ON_WEIGHTS):
                return None
            moved = moved or (moves(call.layer) and name not in ("Cast", "StopGradient"))
            tensor = next((each for each in call.inputs if each in self._moving and each.is_float), call.inputs[0])
        return None

    def _written_out(self, division: Call) -> Tensor | None:
        """Returns z of exp(z) / sum(exp(z)), where a call is that division."""
        if type(division.layer).__name__ not in ("Divide", "TrueDivide") or len(division.inputs) != 2:
            return None
        tensor = division.inputs[0]
        for _ in range(4):
            call = self._makers.get(tensor)
            if call is None or not call.inputs:
                return None
            if type(call.layer).__name__ == "Exp":
                tensor = call.inputs[0]
                before = self._makers.get(tensor)
                if before is not None and type(before.layer).__name__ == "Subtract":
                    tensor = before.inputs[0]
                return tensor
            if type(call.layer).__name__ not in ("Multiply", "Where", "Cast"):
                return None
            tensor = next((each for each in call.inputs if each in self._moving and each.is_float), call.inputs[0])
        return None

    def _scores(self, logits: Tensor) -> tuple[Call | None, bool]:
        """Returns the product of two signals that logits come from, and whether axes were moved since."""
        waiting, seen = [(logits, False)], 0
        while waiting and seen < 60:
            seen += 1
            tensor, moved = waiting.pop()
            call = self._makers.get(tensor)
            if call is None:
                continue
            if self._is_product(call) and product_letters(call) is not None:
                return call, moved
            name = type(call.layer).__name__
            if moves(call.layer) or name in _ON_SCORES or name.startswith("Activation"):
                now = moved or (moves(call.layer) and name not in ("Cast", "StopGradient"))
                waiting += [(each, now) for each in reversed(call.inputs) if each in self._moving and each.is_float]
        return None, False

    def _between(self, scores: Call, logits: Tensor) -> tuple[Call, ...]:
        """Returns the calls that lead from scores to logits."""
        reached, way = {scores.outputs[0]}, []
        end = self._makers.get(logits, scores)
        for call in self._found[self._places[id(scores)] + 1 : self._places[id(end)] + 1]:
            if not call.opened and reached.intersection(call.inputs):
                reached.update(call.outputs)
                way.append(call)
        needed, kept = {logits}, []
        for call in reversed(way):
            if needed.intersection(call.outputs):
                needed.update(call.inputs)
                kept.append(call)
        return tuple(kept[::-1])

    def _holder(self, *parts: Call) -> str:
        """Returns the path of the innermost layer that holds all parts."""
        path = parts[-1].path
        while path := path.rpartition("/")[0]:
            if path in self._inside and all(part.path.startswith(f"{path}/") for part in parts):
                return path
        return parts[-1].path


def _is_softmax(call: Call) -> bool:
    activation = getattr(call.layer, "activation", None)
    if isinstance(call.layer, keras.layers.Activation):
        return activation is keras.activations.softmax
    return type(call.layer).__name__ == "Softmax"


def _axes(weights: str, value: str, out: str, tensor: Tensor) -> tuple[str, str, str] | None:
    """Returns the letters of the weights, and those of queries and keys among them."""
    keys = [each for each in weights[1:] if each in value and each not in out]
    queries = [each for each in weights[1:] if each not in value and each in out]
    if len(keys) != 1 or not queries:
        return None
    size = tensor.shape[weights.index(keys[0])]
    same = [each for each in queries if tensor.shape[weights.index(each)] == size]
    return weights, (same or queries)[-1], keys[0]


def _roles(
    scores: Call, softmax: Call, axes: tuple[str, str, str], moved: bool
) -> tuple[Tensor, Tensor, tuple[str, str, str]]:
    """Returns the queries and the keys: the factor of the scores whose positions the average is taken over."""
    letters = product_letters(scores)
    assert letters is not None
    weights, query, key = axes
    first, second = scores.inputs
    if moved:
        return first, second, axes
    letter = letters.out[weights.index(key)] if len(letters.out) == len(weights) else letters.out[-1]
    if letter in letters.one and letter not in letters.two:
        first, second = second, first
        ours, theirs = letters.two, letters.one
    else:
        ours, theirs = letters.one, letters.two
    if len(letters.out) == len(weights):  # of several axes that only queries have, one is that of their positions
        alone = [weights[letters.out.index(each)] for each in letters.out[1:] if each in ours and each not in theirs]
        if len(alone) == 1:
            query = alone[0]
    return first, second, (weights, query, key)
