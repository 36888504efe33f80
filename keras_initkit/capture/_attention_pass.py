"""The passes of a probe that read attention: attention weights, residual sums, and the order of tokens."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._random_state import random_state_kept
from keras_initkit.capture._attention_reading import AttentionReader
from keras_initkit.capture._replay import Replay, Values
from keras_initkit.capture._token_order import Arrays, KnownPadding, OrderCheck, are_next_tokens
from keras_initkit.capture.backends import probe_backend
from keras_initkit.report._attention_rows import AttentionStats, OrderStats, ResidualStats
from keras_initkit.statistics._attention import cosine
from keras_initkit.structure._attention_inputs import token_inputs
from keras_initkit.structure._calls import calls, free_batch, has_graph, leaves_in_order, traced_for
from keras_initkit.structure._graph import Call, Tensor
from keras_initkit.structure._residual import Branch, residual_branches

LARGE = 2**27  # elements of one tensor, half a GiB: beyond, only as many examples are read as a check of order needs
_FEW = 2


class AttentionSections(NamedTuple):
    """What was read, as sections of a report, and notes on what could not be read."""

    attention: tuple[AttentionStats, ...] = ()
    residuals: tuple[ResidualStats, ...] = ()
    order: tuple[OrderStats, ...] = ()
    notes: tuple[str, ...] = ()


def read_attention(
    model: keras.Model, graph: Sequence[Call], x: Any, y: Any = None, *, order: bool = True
) -> AttentionSections:
    """Returns the rows of attentions, residual sums and order; none of a model without attention.

    A few examples go through the model, layers behaving as in inference. What the passes write stays in scopes of
    their own.

    Args:
        graph: The calls of the model, as `calls` returns them.
        x: Inputs of the model.
        y: Labels, from which it is known whether the model predicts the next token.
        order: Boolean. Whether to measure what the model makes of the order of its tokens.
    """
    reader = AttentionReader(graph, _names(model, graph[-1].inputs))
    if not reader.attentions:
        return AttentionSections()
    free = (each.shape[1:] for call in graph for each in call.outputs if each.shape[:1] == (None,))
    if max(map(math.prod, free), default=0) * free_batch() > LARGE:
        with traced_for(_FEW):
            graph = calls(model, x)
            return _read(model, graph, AttentionReader(graph, _names(model, graph[-1].inputs)), x, y, order)
    return _read(model, graph, reader, x, y, order)


def _read(
    model: keras.Model, graph: Sequence[Call], reader: AttentionReader, x: Any, y: Any, order: bool
) -> AttentionSections:
    inputs = graph[-1].inputs
    arrays = [np.asarray(keras.ops.convert_to_numpy(each)) for each in leaves_in_order(model, x)]
    whole = dict(zip(inputs, arrays, strict=True))
    names = dict(zip(inputs, _names(model, inputs), strict=True))
    padding = KnownPadding(graph, names)
    replay = Replay(graph, reader.kept)
    joins = _Joins(residual_branches(model))

    def after(call: Call, values: Values) -> None:
        reader.after(call, values)
        joins.after(call, values)

    batch, count = _batch(whole, padding, replay.examples)
    few = {tensor: array[: min(_FEW, count)] for tensor, array in batch.items()} if replay.examples else batch
    with contextlib.ExitStack() as stack:
        for kept in (random_state_kept(), probe_backend().undisturbed(model), probe_backend().no_gradients()):
            stack.enter_context(kept)
        stack.enter_context(keras.StatelessScope())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # the model's own pass gives them
        reader.begin(padding.of(batch), count)
        joins.begin(count)
        replay.run([batch[each] for each in inputs], after)
        orders = _orders(model, graph, reader, names, padding, few, whole, _labels(y), replay) if order else ()
        rows = tuple(orders)
    notes = [f"The pass that reads attention could not run {path} ({why})." for path, why in replay.failures.items()]
    notes += [f"The attention {path} was not read ({why})." for path, why in reader.unread.items()]
    return AttentionSections(reader.rows(), joins.rows(), rows, tuple(notes))


def _orders(
    model: keras.Model,
    graph: Sequence[Call],
    reader: AttentionReader,
    names: dict[Tensor, str],
    padding: KnownPadding,
    few: Arrays,
    whole: Arrays,
    labels: Sequence[np.ndarray],
    replay: Replay,
) -> Iterator[OrderStats]:
    """Yields a row for each group of inputs whose tokens attention reads together."""
    tokens, done = list(token_inputs(graph)), set()
    padded = padding.of(few)
    for attention in reader.attentions:
        origins = reader.positions.get(attention.query, frozenset())
        group = [each for each in tokens if each in origins and len(each.shape) == 2]
        group = [each for each in group if "pos" not in names[each].lower()]  # positions are given by such an input
        if origins != reader.positions.get(attention.key) or not group or frozenset(group) in done:
            continue
        done.add(frozenset(group))
        along = [each for each in padding.go_along(group) if each not in group]
        masked = [padded[each] for each in group if each in padded]
        check = OrderCheck(replay, model, graph[-1].inputs, group)
        row = check.measure(names[group[0]], few, along, masked[0] if masked else None)
        next_tokens = are_next_tokens(whole[group[0]], labels) if labels else None
        yield replace(row, next_tokens=next_tokens)


def _names(model: keras.Model, inputs: Sequence[Tensor]) -> list[str]:
    """Returns the names of the inputs; their places where they have none."""
    if has_graph(model) and len(model.inputs) == len(inputs):
        return [each.name for each in model.inputs]
    return [f"input {place}" if len(inputs) > 1 else "input" for place in range(len(inputs))]


def _labels(y: Any) -> list[np.ndarray]:
    found = [] if y is None else [np.asarray(keras.ops.convert_to_numpy(each)) for each in keras.tree.flatten(y)]
    return [each for each in found if each.ndim > 1]


def _batch(whole: Arrays, padding: KnownPadding, size: int | None) -> tuple[Arrays, int]:
    """Returns `size` examples, those with padding first, repeated where there are fewer; and how many are distinct."""
    count = len(next(iter(whole.values())))
    if size is None:
        return whole, count
    padded = [each.any(axis=1) for each in padding.of(whole).values()]
    order = np.argsort(~np.logical_or.reduce(padded), kind="stable") if padded else np.arange(count)
    places = np.resize(order[:size], size)
    return {tensor: array[places] for tensor, array in whole.items()}, min(count, size)


class _Joins:
    """Reads what residual branches add to their stream."""

    def __init__(self, branches: Sequence[Branch]):
        self._by_sum: dict[int, list[Branch]] = {}
        for branch in branches:
            self._by_sum.setdefault(id(branch.sum), []).append(branch)
        self._found: list[ResidualStats] = []
        self._examples = 0

    def begin(self, examples: int) -> None:
        """Prepares for a pass, of whose batch so many examples are read."""
        self._examples = examples

    def after(self, call: Call, values: Values) -> None:
        """Reads the branches that end in a sum when it has been computed."""
        for branch in self._by_sum.get(id(call), ()):
            if branch.end not in values or branch.stream not in values:
                continue
            end, stream = to_numpy(values[branch.end]), to_numpy(values[branch.stream])
            if end.shape != stream.shape:
                continue
            if len(end) == free_batch():
                end, stream = end[: self._examples], stream[: self._examples]
            of_end, of_stream = (float(np.sqrt(np.square(each, dtype="float64").mean())) for each in (end, stream))
            ratio = of_end / of_stream if of_stream > 0 else float("nan")
            last = branch.calls[-1].path if branch.calls else branch.at
            self._found.append(ResidualStats(branch.at, branch.sum.index, last, cosine(end, stream), ratio))

    def rows(self) -> tuple[ResidualStats, ...]:
        """Returns a row for each branch that was read."""
        return tuple(self._found)
