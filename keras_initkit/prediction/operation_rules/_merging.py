"""Sums and products of several signals, and rules for layers and operations that join them.

Signals are added and multiplied as independent ones. That holds where no kernel feeds both element by element: a
residual branch ends in its own kernel, whose weights of mean 0 make it uncorrelated with the skip connection.
Correlated branches are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_initkit.prediction.algebra._activation import activate
from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._laws import law_of_sum
from keras_initkit.prediction.algebra._layout import broadcast, joint_axes
from keras_initkit.prediction.algebra._levels import even, weighted
from keras_initkit.prediction.algebra._parts import leaves
from keras_initkit.prediction.algebra._reshaping import reshape
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, UnpredictableError
from keras_initkit.prediction.algebra._spread import of_sum
from keras_initkit.prediction.operation_rules._rule_table import rule


def union(inputs: Sequence[Signal]) -> frozenset:
    """Returns all sources of several signals."""
    return frozenset().union(*(signal.sources for signal in inputs))


def dependent() -> UnpredictableError:
    """Returns the error of branches that are not independent."""
    return UnpredictableError("the branches that it joins are correlated: one kernel or input feeds both")


def plus(a: Signal, b: Signal) -> Signal:
    """Adds two independent signals: E[(a + b)_p (a + b)_q] = E[a_p a_q] + E[b_p b_q] + 2 E[a] E[b]."""
    crossed = 2 * a.mean * b.mean
    lags: dict[str, Any] = {}
    for name in ("within_example", "between_examples"):
        one, two = getattr(a, name), getattr(b, name)
        lags[name] = None if one is None or two is None else (one + two).map(lambda v: v + crossed)
    return Signal(
        a.mean + b.mean,
        a.second_moment + b.second_moment + crossed,
        a.size,
        **lags,
        axes=a.axes,
        across_units=_crossed(a, b, crossed),
        gaussian=a.gaussian and b.gaussian,
        law=None if all(x.gaussian and x.identically_distributed for x in (a, b)) else law_of_sum(a, b),
        identically_distributed=a.identically_distributed and b.identically_distributed,
        edges=(a.edges or b.edges) and all(x.identically_distributed or x.edges for x in (a, b)),
        profile=_mixed(a, b),
        levels=weighted([(a.second_moment, a.levels), (b.second_moment, b.levels)]),
        spread=of_sum([(a.second_moment, a.spread), (b.second_moment, b.spread)])[0],
    )


def _crossed(a: Signal, b: Signal, crossed: float) -> float | None:
    if a.across_units is None and b.across_units is None:
        return None
    return a.product_of_units + b.product_of_units + crossed


def _mixed(a: Signal, b: Signal) -> Any:
    """Averages two profiles, weighted by their mean squares."""
    if not (a.profile or b.profile) or a.second_moment + b.second_moment == 0:
        return ()
    share = a.second_moment / (a.second_moment + b.second_moment)
    pairs = zip(a.profile or (None,) * len(a.size), b.profile or (None,) * len(a.size), strict=True)
    return tuple(
        None if p is None and q is None
        else share * (1.0 if p is None else p) + (1 - share) * (1.0 if q is None else q)
        for p, q in pairs
    )  # fmt: skip


def one_argument(
    inputs: Sequence[Signal], combine: Callable[..., Any], factors: Sequence[float] | None
) -> LayerPropagation:
    """Combines signals that are functions of one Gaussian z: z + f(z) is one function of z.

    Where z itself is among them, its gradient holds that of all. Otherwise each has its own, multiplied by `factors`.
    """
    sources = {id(signal.argument or signal): signal.argument or signal for signal in inputs}
    (source,) = sources.values() if len(sources) == 1 else (None,)
    if source is None or not source.gaussian:
        raise dependent()
    functions = [signal.function or (lambda x: x) for signal in inputs]
    total = activate(lambda x: combine(*(function(x) for function in functions)), source)
    direct = next((place for place, signal in enumerate(inputs) if signal is source), None)

    def backward(gradient: Gradient) -> list[Gradient]:
        if direct is not None:
            none = gradient.scaled(0.0, sources=frozenset())
            return [total.backward(gradient)[0] if place == direct else none for place in range(len(inputs))]
        if factors is None:
            raise UnpredictableError("the gradients of its inputs are correlated")
        return [gradient.scaled(factor) for factor in factors]

    return replace(total, backward=backward)


@rule("Concatenate", operations="Concatenate", anywhere=True, parted=True)
def concatenate(call, inputs):
    """Averages over the parts, each weighted by its fraction of the elements."""
    rank, outer = len(call.outputs[0].shape), call.outputs[0].shape
    axis = call.layer.axis % rank
    if not all(signal.known or signal.values is not None for signal in inputs):
        raise UnpredictableError("its input is not predicted")
    inputs = [signal.with_margin() for signal in inputs]
    axes = joint_axes(inputs, [tensor.shape for tensor in call.inputs], outer)
    inputs = [
        broadcast(signal, tensor.shape, (*outer[:axis], tensor.shape[axis], *outer[axis + 1 :]), axes)
        for signal, tensor in zip(inputs, call.inputs, strict=True)
    ]
    sizes = [tensor.shape[axis] for tensor in call.inputs]
    if axis == 0 or any(size is None for size in sizes):
        raise UnpredictableError("it joins examples, or an axis of unknown size")
    shares = [size / sum(sizes) for size in sizes]

    def mix(values: Sequence[float]) -> float:
        return sum(share * value for share, value in zip(shares, values, strict=True))

    lags = {"within_example": None, "between_examples": None}
    joins_units = axis > 0 and axes[axis - 1] is None
    if joins_units:
        for name in lags:
            known = [getattr(signal, name) for signal in inputs]
            if all(values is not None for values in known):
                scaled = [v.map(lambda x, s=s: s * x) for v, s in zip(known, shares, strict=True)]
                lags[name] = sum(scaled[1:], start=scaled[0])
    first = inputs[0]
    alike = all(
        signal.identically_distributed
        and math.isclose(signal.mean, first.mean, rel_tol=1e-6, abs_tol=1e-9)
        and math.isclose(signal.second_moment, first.second_moment, rel_tol=1e-6)
        for signal in inputs
    )
    parts = ()
    if joins_units and not (alike and all(signal.gaussian for signal in inputs)):
        parts = leaves(list(zip(shares, inputs, strict=True)))
    counts = [len(signal.parts) or 1 for signal in inputs]
    output = Signal(
        mix([signal.mean for signal in inputs]),
        mix([signal.second_moment for signal in inputs]),
        tuple(n for n, place in zip(outer[1:], axes, strict=True) if place is not None),
        **(lags if joins_units else _joined_lags(inputs, shares, axes[axis - 1])),
        axes=axes,
        gaussian=all(signal.gaussian for signal in inputs),
        identically_distributed=alike,
        sources=_rejoined(call, inputs),
        parts=parts,
        levels=None if joins_units else _joined_levels(inputs),
        spread=of_sum([(share * x.second_moment, x.spread) for share, x in zip(shares, inputs, strict=True)])[0],
    )
    slices = [(call.outputs[0].number, place) for place in range(len(inputs))]

    def backward(gradient: Gradient) -> list[Gradient]:
        # Slices of one gradient: the same kernels, but other units, hence other weights.
        found = []
        start = 0
        for part, count in zip(slices, counts, strict=True):
            tags = frozenset({(source, part) for source in gradient.sources})
            levels = gradient.levels if joins_units else None
            tagged = gradient.scaled(1.0, sources=tags, parts=(), chosen=gradient.chosen, levels=levels)
            if parts and len(gradient.parts) == len(parts):
                seconds = gradient.parts[start : start + count]
                weights = [share for share, _ in parts[start : start + count]]
                second = sum(s * w for s, w in zip(seconds, weights, strict=True)) / sum(weights)
                common = tagged.common
                if common is not None and tagged.second_moment > 0:
                    common *= second / tagged.second_moment
                tagged = replace(tagged, second_moment=second, parts=seconds if count > 1 else (), common=common)
            found.append(tagged)
            start += count
        if not joins_units and gradient.levels is not None and gradient.levels.shape[1] == sum(sizes):
            cuts = np.split(gradient.levels, np.cumsum(sizes)[:-1], axis=1)
            return [replace(part.scaled(float(cut.mean())), levels=even(cut) if cut.mean() > 0 else None)
                    for part, cut in zip(found, cuts, strict=True)]  # fmt: skip
        return found

    return LayerPropagation(output, backward)


def _rejoined(call, inputs: Sequence[Signal]) -> frozenset:
    """Returns the sources of joined parts; slices that stand where they stood make up what they were cut from."""
    parts = [{source: cut for source in signal.sources if isinstance(source, tuple) and len(source) == 3
              and source[0] == "cut" for cut in [source[2]]} for signal in inputs]  # fmt: skip
    kept = set()
    for signal in inputs:
        for source in signal.sources:
            cut = isinstance(source, tuple) and len(source) == 3 and source[0] == "cut"
            kept.add(source[1] if cut and _in_order(source[1], parts) else source)  # type: ignore[index]
    return frozenset(kept)


def _in_order(source: Any, parts: Sequence[dict]) -> bool:
    starts = [cut[0] for each in parts for (_, inner, cut) in each if inner == source]
    return starts == sorted(starts) and len(starts) == len(parts)


def _joined_levels(inputs: Sequence[Signal]) -> np.ndarray | None:
    """Returns the levels of parts of a sequence."""
    if any(len(signal.size) != 1 or signal.size[0] is None or signal.levels is not None for signal in inputs):
        return None
    return even(np.concatenate([np.full((1, signal.size[0]), signal.second_moment) for signal in inputs], axis=1))


def _joined_lags(
    inputs: Sequence[Signal], shares: Sequence[float], axis: int | None
) -> dict[str, Autocorrelation | None]:
    """Returns the mean products where parts are joined along an axis of positions, taken as the same at all lags."""
    found: dict[str, Autocorrelation | None] = {"within_example": None, "between_examples": None}
    if axis is None or inputs[0].size is None:
        return found
    for name in found:
        known = [getattr(signal, name) for signal in inputs]
        if any(lags is None or lags.axes != 1 for lags in known):
            continue
        counts = [signal.size[0] for signal in inputs]
        if None in counts:
            continue
        total = sum(counts)
        zero = sum(share * lags.zero for share, lags in zip(shares, known, strict=True))
        pairs = sum(n * (n - 1) * lags.off_zero([n]) for n, lags in zip(counts, known, strict=True))
        for place, (n, one) in enumerate(zip(counts, inputs, strict=True)):
            pairs += sum(2 * n * m * one.mean * other.mean
                         for m, other in list(zip(counts, inputs, strict=True))[place + 1 :])  # fmt: skip
        found[name] = Autocorrelation.white(zero, pairs / (total * (total - 1)), 1)
    return found


@rule(operations="Stack")
def stack(call, inputs):
    """Joins parts along a new axis."""
    axis = call.layer.axis % len(call.outputs[0].shape)
    outer = call.outputs[0].shape
    if axis == 0:
        raise UnpredictableError("it joins examples")
    if not all(signal.known for signal in inputs):
        raise UnpredictableError("its input is not predicted")
    one = (*outer[:axis], 1, *outer[axis + 1 :])
    parts = [reshape(signal, tensor.shape, one) for signal, tensor in zip(inputs, call.inputs, strict=True)]
    inner = [replace(tensor, shape=one) for tensor in call.inputs]
    return concatenate(replace(call, inputs=tuple(inner)), parts)
