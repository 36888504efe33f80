"""Reads the attentions of a model in a pass of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._compat import describe_error
from keras_initkit.capture._replay import Values, compute
from keras_initkit.report._attention_rows import AttentionStats
from keras_initkit.statistics._attention import (
    NEGLIGIBLE,
    allowed_keys,
    entropies,
    largest_logits,
    softmax,
    weight_after,
    weight_on,
)
from keras_initkit.structure._attention_inputs import follow_positions
from keras_initkit.structure._attentions import Attention, find_attentions
from keras_initkit.structure._calls import free_batch
from keras_initkit.structure._graph import Call, Tensor

ELEMENTS = 2**22  # weights of an attention that are read; beyond, queries are left out


class AttentionReader:
    """Collects the statistics of each attention over a few examples.

    Args:
        graph: The calls of a model, as `calls` returns them.
        names: Names of the model's inputs, in their order.
    """

    def __init__(self, graph: Sequence[Call], names: Sequence[str]):
        self.graph = graph
        self.attentions = find_attentions(graph)
        self.positions = follow_positions(graph, self.attentions)
        self._by_product = {id(attention.product): attention for attention in self.attentions}
        self._names = dict(zip(graph[-1].inputs, names, strict=True))
        self._found: dict[Attention, AttentionStats] = {}
        self._padding: Mapping[Tensor, np.ndarray] = {}
        self._examples = 0
        self.unread: dict[str, str] = {}  # reasons why attentions could not be read, by path

    @property
    def kept(self) -> dict[int, list[Tensor]]:
        """Tensors that are needed when the values of an attention have been averaged, by that call's identity."""
        found = {}
        for attention in self.attentions:
            needed = [attention.query, attention.key, attention.weights, attention.logits]
            needed += [attention.scores.outputs[0]] if attention.scores else []
            needed += [tensor for call in attention.between for tensor in call.inputs]
            if isinstance(attention.mask, Tensor):
                needed.append(attention.mask)
            found[id(attention.product)] = [each for each in needed if each is not None]
        return found

    def begin(self, padding: Mapping[Tensor, np.ndarray], examples: int) -> None:
        """Prepares for a pass.

        Args:
            padding: Boolean arrays of shape `(batch, positions)`: which positions of an input are padding.
            examples: Integer. How many examples of the batch are read, from its first; the others are repetitions.
        """
        self._padding, self._examples = padding, examples

    def after(self, call: Call, values: Values) -> None:
        """Reads an attention when its values have been averaged."""
        attention = self._by_product.get(id(call))
        if attention is None:
            return
        try:
            read = _fused(call, values) if attention.scores is None else _composed(attention, values)
            self._found[attention] = self._measured(attention, *read)
        except Exception as error:  # whatever a user's layer raises, or makes of a few examples
            needed = [each for each in self.kept[id(call)] if each.variable is None and each.value is None]
            is_there = all(each in values for each in needed)
            self.unread[attention.path] = describe_error(error) if is_there else "what it reads was not computed"

    def rows(self) -> tuple[AttentionStats, ...]:
        """Returns the statistics of what was read, in the order of the forward pass."""
        return tuple(self._found[attention] for attention in self.attentions if attention in self._found)

    def _origins(self, tensor: Tensor) -> list[Tensor]:
        return sorted(self.positions.get(tensor, ()), key=lambda each: each.number)

    def _measured(
        self, attention: Attention, weights: np.ndarray, logits: np.ndarray, allowed: np.ndarray, chosen: np.ndarray
    ) -> AttentionStats:
        """Returns the figures; `chosen` are the queries' positions."""
        if len(weights) == free_batch():
            weights, logits, allowed = (each[: self._examples] for each in (weights, logits, allowed))
        of_queries, of_keys = self._origins(attention.query), self._origins(attention.key)
        by_head, uniform = entropies(weights, allowed)
        sums = weights.sum(axis=-1, dtype="float64")
        keys, queries = weights.shape[-1], int(chosen[-1]) + 1
        found: dict[str, float] = {}
        padded = self._padded(of_keys, keys, len(weights))
        if of_queries and of_queries == of_keys and queries == keys > 1:
            later = np.arange(keys) > chosen[:, None]
            earlier = np.arange(keys) < chosen[:, None]
            pairs = np.broadcast_to(allowed, weights.shape)
            if padded is not None:  # what padding may see says nothing of order
                real = ~padded[:, None, chosen, None] & ~padded[:, None, None, :]
                pairs = pairs & real
            else:
                real = np.ones((1, 1, 1, 1), bool)
            for name, among in (("future_allowed", later), ("past_allowed", earlier)):
                possible = np.broadcast_to(among & real, weights.shape).sum()
                if possible:
                    found[name] = float((pairs & among).sum() / possible)
            found["future"] = weight_after(weights, chosen)
        if padded is not None and (some := padded.any(axis=1) & ~padded.all(axis=1)).any():
            asking = self._padded(of_queries, queries, len(weights))
            real_queries = None if asking is None else ~asking[some][:, chosen]
            found["padded_keys"] = float(padded[some].mean())
            found["padding"] = weight_on(weights[some], padded[some], real_queries)
        return AttentionStats(
            attention.path,
            attention.index,
            queries,
            keys,
            tuple(by_head.tolist()),
            uniform,
            tuple(largest_logits(logits, allowed).tolist()),
            sum_error=float(np.median(np.abs(sums[np.broadcast_to(allowed, weights.shape).any(axis=-1)] - 1))),
            queries_from=tuple(self._names[each] for each in of_queries),
            keys_from=tuple(self._names[each] for each in of_keys),
            **found,
        )

    def _padded(self, origins: Sequence[Tensor], size: int, examples: int) -> np.ndarray | None:
        """Returns which positions are padding, where that is known of one of the inputs that they come from."""
        known = [self._padding[each][: self._examples] for each in origins if each in self._padding]
        known = [each for each in known if each.shape == (examples, size)]
        return known[0] if known else None


def _composed(attention: Attention, values: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns weights, logits, mask and the queries' positions of an attention in several operations."""
    assert attention.weights is not None
    assert attention.logits is not None
    letters, query, key = attention.axes
    order = [each for each in letters[1:] if each not in (query, key)]

    def arranged(array: np.ndarray) -> np.ndarray:
        """The axes in the order of examples, heads, queries and keys."""
        array = np.transpose(array, [letters.index(each) for each in (letters[0], *order, query, key)])
        return array.reshape(len(array), -1, *array.shape[-2:])

    weights = arranged(to_numpy(values[attention.weights]))
    if not attention.aligned:
        logits = np.broadcast_to(to_numpy(values[attention.logits]).max(), weights.shape)
        allowed = weights > 0
    else:
        logits = arranged(to_numpy(values[attention.logits]))
        shape = to_numpy(values[attention.logits]).shape
        bias = np.broadcast_to(to_numpy(_with_zero_scores(attention, values)), shape)
        allowed = allowed_keys(arranged(bias))
        mask = attention.mask
        if mask is not None:
            mask = to_numpy(values[mask] if isinstance(mask, Tensor) else keras.ops.convert_to_tensor(mask))
            mask = mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape) > 0.5
            allowed = allowed & arranged(np.broadcast_to(mask, shape))
        near = logits > logits.max(axis=-1, keepdims=True) - NEGLIGIBLE
        allowed = allowed & ~(near & (weights == 0))  # a mask that multiplies weights
    chosen = _chosen_queries(weights.shape)
    return weights[:, :, chosen], logits[:, :, chosen], np.broadcast_to(allowed, weights.shape)[:, :, chosen], chosen


def _with_zero_scores(attention: Attention, values: Values) -> Any:
    """Returns what the logits are if all scores are 0: the masks and biases alone."""
    assert attention.scores is not None
    assert attention.logits is not None
    (scores,) = attention.scores.outputs
    known = {**values, scores: keras.ops.zeros_like(values[scores])}
    for call in attention.between:
        compute(call, known)
    return known[attention.logits]


def _fused(call: Call, values: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As `_composed`, of an attention in one operation: its scores are computed once more, on the host."""
    named = {**dict(zip(("query", "key", "value", "bias", "mask", "scale"), call.args, strict=False)), **call.kwargs}
    query, key = (to_numpy(values[named[name]]).astype("float32") for name in ("query", "key"))
    if query.shape[2] != key.shape[2]:
        key = np.repeat(key, query.shape[2] // key.shape[2], axis=2)
    shape = (query.shape[0], query.shape[2], query.shape[1], key.shape[1])
    chosen = _chosen_queries(shape)
    scale = named.get("scale")
    logits = np.einsum("bthd,bshd->bhts", query[:, chosen], key)
    logits *= query.shape[-1] ** -0.5 if scale is None else float(scale)
    allowed = np.ones((1, 1, 1, 1), bool)

    def given(name: str) -> np.ndarray | None:
        each = named.get(name)
        if each is None:
            return None
        array = to_numpy(values[each] if isinstance(each, Tensor) else keras.ops.convert_to_tensor(each))
        array = array.reshape((1,) * (4 - array.ndim) + array.shape)
        return array if array.shape[2] == 1 else array[:, :, chosen]

    bias, mask = given("bias"), given("mask")
    if bias is not None:
        logits = logits + bias
        allowed = allowed & allowed_keys(np.broadcast_to(bias, (*bias.shape[:3], shape[3])))
    if mask is not None:
        allowed = allowed & (mask > 0.5)
    if getattr(call.layer, "is_causal", False):
        allowed = allowed & (np.arange(shape[3]) <= chosen[:, None])
    return softmax(logits, allowed), logits, np.broadcast_to(allowed, logits.shape), chosen


def _chosen_queries(shape: Sequence[int]) -> np.ndarray:
    """Returns the positions of the queries that are read, spread evenly from the first to the last."""
    examples, heads, queries, keys = shape
    count = max(min(queries, ELEMENTS // max(examples * heads * keys, 1)), 2)
    return np.unique(np.linspace(0, queries - 1, min(count, queries)).round().astype(int))
