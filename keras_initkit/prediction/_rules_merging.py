"""Layers that join several signals, and attention, whose projections alone are predicted.

Sums and products of signals are those of independent ones, which holds where no kernel feeds both element by element:
the branch of a residual block ends in a kernel of its own, whose weights of mean 0 make it uncorrelated with the skip
connection. Branches that are not so are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keras_initkit.prediction._activation import activate
from keras_initkit.prediction._rules import rule
from keras_initkit.prediction._rules_elementwise import affine
from keras_initkit.prediction._rules_kernels import einsum_dense
from keras_initkit.prediction._signals import Gradient, Passage, Signal, UnpredictableError, independent
from keras_initkit.structure._calls import Call


def _union(inputs: Sequence[Signal]) -> frozenset:
    return frozenset().union(*(signal.roots for signal in inputs))


def _check_shapes(call: Call) -> None:
    if len({tensor.shape[1:] for tensor in call.inputs}) > 1:
        shapes = " and ".join(str(tensor.shape) for tensor in call.inputs)
        raise UnpredictableError(f"its inputs have different shapes, {shapes}")
    if len(call.inputs) < 2:
        raise UnpredictableError("it joins a tensor with a constant")


def _dependent() -> UnpredictableError:
    return UnpredictableError("the branches that it joins are correlated: one kernel or input feeds both")


def _weighted_sum(call: Call, inputs: Sequence[Signal], weights: Sequence[float]) -> Passage:
    _check_shapes(call)
    inputs = [signal.settled() for signal in inputs]
    if len({tensor.number for tensor in call.inputs}) == 1:  # x + x
        passage = affine(inputs[0], sum(weights), 0.0)
        return replace(passage, backward=lambda g: _copies(g, weights))
    if not independent(signal.roots for signal in inputs):
        return _of_one_source(call, inputs, weights)
    total, size = None, inputs[0].size
    for signal, weight in zip(inputs, weights, strict=True):
        term = affine(signal, weight, 0.0).output
        total = term if total is None else _plus(total, term)
    assert total is not None
    output = replace(total, size=size, roots=_union(inputs), source=None, function=None)
    return Passage(output, lambda g: [g.scaled(weight**2) for weight in weights])


def _copies(gradient: Gradient, weights: Sequence[float]) -> list[Gradient]:
    """Gradients of x + x: they meet again at x, where they add up; the first stands for all."""
    return [gradient.scaled(sum(weights) ** 2), *(gradient.scaled(0.0, roots=frozenset()) for _ in weights[1:])]


def _plus(a: Signal, b: Signal) -> Signal:
    """The sum of two independent signals: E[(a + b)_p (a + b)_q] = E[a_p a_q] + E[b_p b_q] + 2 E[a] E[b]."""
    crossed = 2 * a.mean * b.mean
    lags: dict[str, Any] = {}
    for name in ("same", "other"):
        one, two = getattr(a, name), getattr(b, name)
        lags[name] = None if one is None or two is None else (one + two).map(lambda v: v + crossed)
    return Signal(
        a.mean + b.mean,
        a.second + b.second + crossed,
        a.size,
        **lags,
        gaussian=a.gaussian and b.gaussian,
        alike=a.alike and b.alike,
        profile=_mixed(a, b),
    )


def _mixed(a: Signal, b: Signal) -> Any:
    """The profile of a sum: the mean of both, by their strengths."""
    if not (a.profile or b.profile) or a.second + b.second == 0:
        return ()
    share = a.second / (a.second + b.second)
    pairs = zip(a.profile or (None,) * len(a.size), b.profile or (None,) * len(a.size), strict=True)
    return tuple(
        None if p is None and q is None
        else share * (1.0 if p is None else p) + (1 - share) * (1.0 if q is None else q)
        for p, q in pairs
    )  # fmt: skip


def _of_one_source(call: Call, inputs: Sequence[Signal], weights: Sequence[float]) -> Passage:
    """z + f(z) and its like: one function of the Gaussian z."""
    sources = {id(signal.source or signal): signal.source or signal for signal in inputs}
    (source,) = sources.values() if len(sources) == 1 else (None,)
    if source is None or not source.gaussian:
        raise _dependent()
    functions = [signal.function or (lambda x: x) for signal in inputs]

    def total(x):
        return sum(weight * function(x) for weight, function in zip(weights, functions, strict=True))

    return replace(activate(total, source), backward=lambda g: [g.scaled(weight**2) for weight in weights])


@rule("Add")
def add(call, inputs):
    """The sum."""
    return _weighted_sum(call, inputs, [1.0] * len(inputs))


@rule("Average")
def average(call, inputs):
    """The sum over the number of inputs."""
    return _weighted_sum(call, inputs, [1.0 / len(inputs)] * len(inputs))


@rule("Subtract")
def subtract(call, inputs):
    """The first minus the second."""
    return _weighted_sum(call, inputs, [1.0, -1.0])


@rule("Multiply")
def multiply(call, inputs):
    """E[(a b)^2] = E[a^2] E[b^2]; the gradient of a is that of the product times b."""
    _check_shapes(call)
    inputs = [signal.settled() for signal in inputs]
    if not independent(signal.roots for signal in inputs):
        raise _dependent()
    lags: dict[str, Any] = {}
    for name in ("same", "other"):
        known = [getattr(signal, name) for signal in inputs]
        lags[name] = None if any(values is None for values in known) else math.prod(known[1:], start=known[0])
    second = math.prod(signal.second for signal in inputs)
    output = Signal(
        math.prod(signal.mean for signal in inputs),
        second,
        inputs[0].size,
        **lags,
        alike=all(signal.alike for signal in inputs),
        roots=_union(inputs),
    )

    def backward(gradient: Gradient) -> list[Gradient]:
        others = [math.prod(b.second for b in inputs if b is not a) for a in inputs]
        return [gradient.scaled(other) for other in others]

    return Passage(output, backward)


@rule("Concatenate")
def concatenate(call, inputs):
    """Means over the parts, each weighted by its share of the elements."""
    rank = len(call.outputs[0].shape)
    axis = call.layer.axis % rank
    inputs = [signal.settled() for signal in inputs]
    sizes = [tensor.shape[axis] for tensor in call.inputs]
    if axis == 0 or any(size is None for size in sizes):
        raise UnpredictableError("it joins examples, or an axis of unknown size")
    shares = [size / sum(sizes) for size in sizes]

    def mix(values: Sequence[float]) -> float:
        return sum(share * value for share, value in zip(shares, values, strict=True))

    lags = {"same": None, "other": None}
    if axis == rank - 1:
        for name in lags:
            known = [getattr(signal, name) for signal in inputs]
            if all(values is not None for values in known):
                scaled = [v.map(lambda x, s=s: s * x) for v, s in zip(known, shares, strict=True)]
                lags[name] = sum(scaled[1:], start=scaled[0])
    first = inputs[0]
    alike = all(
        signal.alike
        and math.isclose(signal.mean, first.mean, rel_tol=1e-6, abs_tol=1e-9)
        and math.isclose(signal.second, first.second, rel_tol=1e-6)
        for signal in inputs
    )
    output = Signal(
        mix([signal.mean for signal in inputs]),
        mix([signal.second for signal in inputs]),
        first.size if axis == rank - 1 else call.outputs[0].shape[1:-1],
        **lags,
        gaussian=all(signal.gaussian for signal in inputs),
        alike=alike,
        roots=_union(inputs),
    )
    tags = [(call.outputs[0].number, place) for place in range(len(inputs))]

    def backward(gradient: Gradient) -> list[Gradient]:
        # Slices of one gradient: the same kernels, but other units, hence other weights of them.
        return [gradient.scaled(1.0, roots=frozenset({(root, tag) for root in gradient.roots})) for tag in tags]

    return Passage(output, backward)


@rule("MultiHeadAttention")
def attention(call, inputs):
    """Query, key and value are dense layers; what attention then makes of them is not predicted."""
    layer = call.layer
    names = ("query_dense", "value_dense", "key_dense")
    read = [*inputs, inputs[1]][:3] if len(inputs) > 1 else inputs * 3
    parts = []
    for name, x in zip(names, read, strict=True):
        dense = getattr(layer, name, None) or getattr(layer, f"_{name}")
        shape = (None, *x.size, None)
        output = (None, *x.size, *layer_units(dense))
        inner = Call("", dense, 0, (call.inputs[0]._replace(shape=shape),), (call.inputs[0]._replace(shape=output),))
        parts.append((dense, x, einsum_dense(inner, [x]).output))
    return Passage(Signal.unknown(inputs[0].size), lambda gradient: [], parts=parts)


def layer_units(dense) -> tuple[int, ...]:
    """The units of a projection: heads, and sizes of each."""
    return tuple(dense.kernel.shape[1:])
