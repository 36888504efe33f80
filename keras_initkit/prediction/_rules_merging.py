"""Rules for layers that merge several signals, and for attention, of which only the projections are predicted.

Signals are added and multiplied as independent ones. That holds where no kernel feeds both element by element: a
residual branch ends in its own kernel, whose weights of mean 0 make it uncorrelated with the skip connection.
Correlated branches are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keras_initkit._compat import attention_projections
from keras_initkit.prediction._activation import activate
from keras_initkit.prediction._rules import rule
from keras_initkit.prediction._rules_elementwise import affine
from keras_initkit.prediction._rules_linear import einsum_dense
from keras_initkit.prediction._signals import Gradient, LayerPropagation, Signal, UnpredictableError, are_independent
from keras_initkit.structure._graph import Call


def _union(inputs: Sequence[Signal]) -> frozenset:
    return frozenset().union(*(signal.sources for signal in inputs))


def _check_shapes(call: Call) -> None:
    if len({tensor.shape[1:] for tensor in call.inputs}) > 1:
        shapes = " and ".join(str(tensor.shape) for tensor in call.inputs)
        raise UnpredictableError(f"its inputs have different shapes, {shapes}")
    if len(call.inputs) < 2:
        raise UnpredictableError("it joins a tensor with a constant")


def _dependent() -> UnpredictableError:
    return UnpredictableError("the branches that it joins are correlated: one kernel or input feeds both")


def _weighted_sum(call: Call, inputs: Sequence[Signal], weights: Sequence[float]) -> LayerPropagation:
    _check_shapes(call)
    inputs = [signal.with_margin() for signal in inputs]
    if len({tensor.number for tensor in call.inputs}) == 1:  # x + x
        propagation = affine(inputs[0], sum(weights), 0.0)
        return replace(propagation, backward=lambda g: _copies(g, weights))
    if not are_independent(signal.sources for signal in inputs):
        return _sum_of_one_argument(call, inputs, weights)
    total, size = None, inputs[0].size
    for signal, weight in zip(inputs, weights, strict=True):
        term = affine(signal, weight, 0.0).output
        total = term if total is None else _plus(total, term)
    assert total is not None
    output = replace(total, size=size, sources=_union(inputs), argument=None, function=None)
    return LayerPropagation(output, lambda g: [g.scaled(weight**2) for weight in weights])


def _copies(gradient: Gradient, weights: Sequence[float]) -> list[Gradient]:
    """Gradients of x + x, which add up again at x: the first holds the whole sum, the others are 0."""
    return [gradient.scaled(sum(weights) ** 2), *(gradient.scaled(0.0, sources=frozenset()) for _ in weights[1:])]


def _plus(a: Signal, b: Signal) -> Signal:
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
        gaussian=a.gaussian and b.gaussian,
        identically_distributed=a.identically_distributed and b.identically_distributed,
        profile=_mixed(a, b),
    )


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


def _sum_of_one_argument(call: Call, inputs: Sequence[Signal], weights: Sequence[float]) -> LayerPropagation:
    """Adds signals that are functions of one Gaussian z: z + f(z) is one function of z."""
    sources = {id(signal.argument or signal): signal.argument or signal for signal in inputs}
    (source,) = sources.values() if len(sources) == 1 else (None,)
    if source is None or not source.gaussian:
        raise _dependent()
    functions = [signal.function or (lambda x: x) for signal in inputs]

    def total(x):
        return sum(weight * function(x) for weight, function in zip(weights, functions, strict=True))

    return replace(activate(total, source), backward=lambda g: [g.scaled(weight**2) for weight in weights])


@rule("Add")
def add(call, inputs):
    """Adds the inputs."""
    return _weighted_sum(call, inputs, [1.0] * len(inputs))


@rule("Average")
def average(call, inputs):
    """Adds the inputs and divides by their number."""
    return _weighted_sum(call, inputs, [1.0 / len(inputs)] * len(inputs))


@rule("Subtract")
def subtract(call, inputs):
    """Subtracts the second input from the first."""
    return _weighted_sum(call, inputs, [1.0, -1.0])


@rule("Multiply")
def multiply(call, inputs):
    """E[(a b)^2] = E[a^2] E[b^2]; the gradient of a is that of the product times b."""
    _check_shapes(call)
    inputs = [signal.with_margin() for signal in inputs]
    if not are_independent(signal.sources for signal in inputs):
        raise _dependent()
    lags: dict[str, Any] = {}
    for name in ("within_example", "between_examples"):
        known = [getattr(signal, name) for signal in inputs]
        lags[name] = None if any(values is None for values in known) else math.prod(known[1:], start=known[0])
    second = math.prod(signal.second_moment for signal in inputs)
    output = Signal(
        math.prod(signal.mean for signal in inputs),
        second,
        inputs[0].size,
        **lags,
        identically_distributed=all(signal.identically_distributed for signal in inputs),
        sources=_union(inputs),
    )

    def backward(gradient: Gradient) -> list[Gradient]:
        others = [math.prod(b.second_moment for b in inputs if b is not a) for a in inputs]
        return [gradient.scaled(other) for other in others]

    return LayerPropagation(output, backward)


@rule("Concatenate")
def concatenate(call, inputs):
    """Averages over the parts, each weighted by its fraction of the elements."""
    rank = len(call.outputs[0].shape)
    axis = call.layer.axis % rank
    inputs = [signal.with_margin() for signal in inputs]
    sizes = [tensor.shape[axis] for tensor in call.inputs]
    if axis == 0 or any(size is None for size in sizes):
        raise UnpredictableError("it joins examples, or an axis of unknown size")
    shares = [size / sum(sizes) for size in sizes]

    def mix(values: Sequence[float]) -> float:
        return sum(share * value for share, value in zip(shares, values, strict=True))

    lags = {"within_example": None, "between_examples": None}
    if axis == rank - 1:
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
    output = Signal(
        mix([signal.mean for signal in inputs]),
        mix([signal.second_moment for signal in inputs]),
        first.size if axis == rank - 1 else call.outputs[0].shape[1:-1],
        **lags,
        gaussian=all(signal.gaussian for signal in inputs),
        identically_distributed=alike,
        sources=_union(inputs),
    )
    slices = [(call.outputs[0].number, place) for place in range(len(inputs))]

    def backward(gradient: Gradient) -> list[Gradient]:
        # Slices of one gradient: the same kernels, but other units, hence other weights.
        return [
            gradient.scaled(1.0, sources=frozenset({(source, part) for source in gradient.sources})) for part in slices
        ]

    return LayerPropagation(output, backward)


@rule("MultiHeadAttention")
def attention(call, inputs):
    """Predicts the dense layers of query, key and value; the output of attention is unknown."""
    read = [*inputs, inputs[1]][:3] if len(inputs) > 1 else inputs * 3
    parts = []
    for dense, x in zip(attention_projections(call.layer), read, strict=True):
        shape = (None, *x.size, None)
        output = (None, *x.size, *dense.kernel.shape[1:])  # heads, and the size of each
        inner = Call("", dense, 0, (replace(call.inputs[0], shape=shape),), (replace(call.inputs[0], shape=output),))
        parts.append((dense, x, einsum_dense(inner, [x]).output))
    return LayerPropagation(Signal.unknown(inputs[0].size), lambda gradient: [], parts=parts)
