r"""Rules for softmax, and for attention in one operation.

At initialization, the scores of a query are Gaussian over the keys. What of their variance all keys share cancels in
the softmax p; from the rest, and from the mask and biases that are added, a fixed sample gives the effective number of
keys $1 / \sum_s p_s^2$, and how much the weights of two queries overlap. The average of values v by such weights has

    E[y^2] = \sum_s p_s^2 E[v^2] + (1 - \sum_s p_s^2) E[v_s v_r]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_initkit.prediction.algebra._layout import axes_of
from keras_initkit.prediction.algebra._levels import even
from keras_initkit.prediction.algebra._notes import Mixing, Offset
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, UnpredictableError
from keras_initkit.prediction.operation_rules._elementwise import affine, needed
from keras_initkit.prediction.operation_rules._kernel_products import Letters
from keras_initkit.prediction.operation_rules._operands import Operand, operands
from keras_initkit.prediction.operation_rules._rule_table import rule
from keras_initkit.prediction.operation_rules._scores import mixed, scores

_ELEMENTS = 2**16  # of the sample of scores: a fixed one, so that equal models have equal predictions
_SHIFT = 1e9  # what a masked logit is moved by


@rule("Softmax", operations="Softmax", anywhere=True)
def softmax(call, inputs):
    """Exponentials that are divided by their sum along an axis."""
    axis = call.layer.axis
    if not isinstance(axis, int):
        if len(axis) != 1:
            raise UnpredictableError("it normalizes over several axes at once")
        (axis,) = axis
    masks = [each.signal.values for each in operands(call, inputs)[1:]]
    if any(values is None for values in masks):
        raise UnpredictableError("its mask is not known")
    return weights_of(inputs[0], call.inputs[0].shape, axis % len(call.inputs[0].shape), masks)


def weights_of(
    x: Signal, shape: Sequence[int | None], axis: int, masks: Sequence[Callable[[], np.ndarray] | None]
) -> LayerPropagation:
    """Returns the softmax of logits along an axis; what a mask holds no truth for gets the weight 0."""
    biases: tuple[Callable[[], np.ndarray], ...] = ()
    if isinstance(x.note, Offset):
        x, biases = x.note.of, x.note.values
    x = needed(x).with_margin()
    if not x.gaussian:
        raise UnpredictableError("softmax normalizes over scores that are not Gaussian")
    n = shape[axis]
    if n is None or axis == 0:
        raise UnpredictableError("the number of elements that it normalizes over is not known")
    axes = axes_of(x, len(shape))
    shared, alike = _shared(x, axes, axis, shape)
    variance = max(x.second_moment - shared, 0.0)
    note = sample_weights(variance, alike, shape, axis, biases, masks)
    if variance > 4 and note.squares * n > 3:
        raise UnpredictableError("its scores are so large that single keys decide")
    output = Signal(
        math.sqrt(note.total) / n, (note.squares) / n, x.size, sources=x.sources, axes=x.axes, note=note
    )  # fmt: skip

    def backward(gradient: Gradient) -> list[Gradient]:
        if gradient.second_moment == 0:
            return [gradient]
        if gradient.along is None:
            raise UnpredictableError("the correlation of its gradient between keys is not known")
        left = 1 - min(gradient.along / gradient.second_moment, 1.0)
        levels = None if note.spreads is None else even(note.spreads)
        found = gradient.weighed(note.spread / n * left, levels)
        return [replace(found, white=True, balanced=True, common=None, along=None)]

    return LayerPropagation(output, backward)


def _shared(x: Signal, axes: Sequence[int | None], axis: int, shape: Sequence[int | None]) -> tuple[float, float]:
    """Returns the mean product of two logits of one query, and the correlation between two queries of what is left."""
    key = axes[axis - 1]
    if key is None:
        return x.product_of_units, 0.0
    lags = x.within_example
    if lags is None:
        if x.second_moment < 0.05:  # small enough for the weights to be even, however they are correlated
            return 0.0, 0.0
        raise UnpredictableError("the correlation of its scores between keys is not known")
    shared = lags.within([key]).off_zero([x.size[key]])
    queries = [place for place in range(len(x.size)) if place != key]
    if not queries or x.second_moment <= shared:
        return shared, 0.0
    sizes = [x.size[place] for place in queries]
    same = lags.within(queries).off_zero(sizes)  # of two queries and one key
    count = math.prod(n or 1 for n in x.size)
    if None in x.size or count == 1 or math.prod(n for n in sizes if n) == 1:
        return shared, 0.0
    rows, keys = math.prod(n for n in sizes if n), x.size[key]
    assert keys is not None
    if keys == 1:
        return shared, 0.0
    total = lags.mean(x.size) * count**2
    within_rows = rows * keys * (x.second_moment + (keys - 1) * shared)
    within_keys = rows * keys * (rows - 1) * same
    crossed = (total - within_rows - within_keys) / (rows * keys * (rows - 1) * (keys - 1))
    return shared, float(np.clip((same - crossed) / (x.second_moment - shared), 0.0, 1.0))


def sample_weights(
    variance: float,
    alike: float,
    shape: Sequence[int | None],
    axis: int,
    biases: Sequence[Callable[[], np.ndarray]],
    masks: Sequence[Callable[[], np.ndarray] | None],
) -> Mixing:
    """Draws logits and returns what prediction needs of their softmax."""
    n = shape[axis]
    assert n is not None
    rows = next((place for place in range(len(shape) - 1, 0, -1) if place != axis and shape[place] != 1), None)
    added: Any = np.zeros((1,) * len(shape))
    for values in biases:
        added = added + _ranked(values(), len(shape))
    kept: Any = np.ones((1,) * len(shape), bool)
    for mask in masks:
        assert mask is not None
        kept = kept & (_ranked(mask(), len(shape)) > 0.5)
    added, kept = np.broadcast_arrays(np.where(kept, added, -_SHIFT), kept)
    queries = 8 if rows is None else shape[rows] or 8
    plain = added.size == 1
    if plain or rows is None:
        queries = min(queries, 8)
    moved, there = (_by_query(each, kept.shape, axis, rows, n) for each in (added, kept))
    random = np.random.default_rng(0)
    groups = max(min(moved.shape[1], _ELEMENTS // (len(moved) * queries * n)), 1)
    moved, there = moved[:, :groups], there[:, :groups]
    if moved.size > 4 * _ELEMENTS:
        moved, there = moved[:1], there[:1]
    copies = max(min(_ELEMENTS // (len(moved) * groups * queries * n), 64), 1)
    count = len(moved), groups, copies
    z = math.sqrt(alike) * random.standard_normal((*count, 1, n))
    z = z + math.sqrt(1 - alike) * random.standard_normal((*count, queries, n))
    # In float32, as the network itself: what a mask moves far down loses its own digits.
    logits = (math.sqrt(variance) * z).astype("float32") + moved[:, :, None].astype("float32")
    p = np.exp((logits - logits.max(axis=-1, keepdims=True)).astype("float64"))
    p /= p.sum(axis=-1, keepdims=True)
    if masks:
        p = p * there[:, :, None]
    sums = p.sum(axis=-1) ** 2
    squares, total, overlap = float((p**2).sum(axis=-1).mean()), float(sums.mean()), 0.0
    if queries > 1:
        pairs = (p.sum(axis=-2) ** 2).sum(axis=-1) - (p**2).sum(axis=(-2, -1))
        overlap = float(pairs.mean()) / (queries * (queries - 1))
    squared = p**2
    spread = (squared * (1 - 2 * p + squared.sum(axis=-1, keepdims=True))).sum(axis=-1)
    uneven = None if plain or rows is None else squared.mean(axis=(1, 2))
    totals = None if uneven is None else sums.mean(axis=(1, 2))
    spreads = None if uneven is None else spread.mean(axis=(1, 2))
    means = squares, total, overlap, max(total - squares, 0.0), float(spread.mean())
    return Mixing(axis, n, *means, uneven, totals, spreads)


def _by_query(values: np.ndarray, shape: Sequence[int], axis: int, rows: int | None, n: int) -> np.ndarray:
    """Returns an array of shape (examples, heads and the like, queries or 1, elements)."""
    values = np.broadcast_to(values, shape)
    if rows is None:
        values = np.moveaxis(values, axis, -1)[..., None, :]
    else:
        values = np.moveaxis(values, [rows, axis], [-2, -1])
    values = np.broadcast_to(values, (*values.shape[:-1], n))
    return values.reshape(len(values), -1, *values.shape[-2:])


def _ranked(values: Any, rank: int) -> np.ndarray:
    values = np.asarray(values, "float64")
    return values.reshape((1,) * (rank - values.ndim) + values.shape)


@rule(operations="DotProductAttention")
def dot_product_attention(call, inputs):
    """Scores, softmax and average in one; query, key and value have shape (examples, positions, heads, units)."""
    named = _arguments(call, inputs)
    query, key, value = (named[name] for name in ("query", "key", "value"))
    if query.shape[2] != key.shape[2]:
        raise UnpredictableError("its queries have more heads than its keys")
    first = scores(query, key, Letters("bthd", "bshd", "bhts"))
    scale = named["scale"] if named["scale"] is not None else 1 / math.sqrt(query.shape[-1])
    scaled = affine(first.output, float(scale), 0.0)
    shape = (query.shape[0], query.shape[2], query.shape[1], key.shape[1])
    logits, masks = scaled.output, []
    if named["bias"] is not None:
        if named["bias"].signal.values is None:
            raise UnpredictableError("its bias is not known")
        logits = replace(logits, note=Offset(logits, (named["bias"].signal.values,)))
    if named["mask"] is not None:
        if named["mask"].signal.values is None:
            raise UnpredictableError("its mask is not known")
        masks.append(named["mask"].signal.values)
    if call.layer.is_causal:
        masks.append(lambda: np.tril(np.ones(shape[2:], bool)))
    weights = weights_of(logits, shape, 3, masks)
    last = mixed(Operand(weights.output, shape, None), value, Letters("bhts", "bshd", "bthd"))

    def backward(gradient: Gradient) -> list[Gradient | None]:
        to_weights, to_value = last.backward(gradient)
        (to_scores,) = weights.backward(to_weights)
        found = {"query": None, "key": None, "value": to_value}
        found["query"], found["key"] = first.backward(scaled.backward(to_scores)[0])  # type: ignore[assignment]
        return [found.get(_name(call, tensor.number)) for tensor in call.inputs]

    return LayerPropagation(last.output, backward)  # type: ignore[arg-type]


_NAMES = ("query", "key", "value", "bias", "mask", "scale")


def _arguments(call: Any, inputs: Sequence[Signal]) -> dict[str, Any]:
    signals = {tensor.number: signal for tensor, signal in zip(call.inputs, inputs, strict=True)}
    given = {**dict(zip(_NAMES, call.args, strict=False)), **call.kwargs}
    found: dict[str, Any] = dict.fromkeys(_NAMES)
    for name, each in given.items():
        if each is None:
            continue
        if hasattr(each, "number"):
            found[name] = Operand(signals[each.number], each.shape, each.number)
        elif name == "scale":
            found[name] = float(each)
        elif name in _NAMES:
            array = np.asarray(each)
            found[name] = Operand(Signal.unknown((), values=lambda array=array: array), array.shape, None)
    return found


def _name(call: Any, number: int) -> str:
    given = {**dict(zip(_NAMES, call.args, strict=False)), **call.kwargs}
    return next((name for name, each in given.items() if getattr(each, "number", None) == number), "")
