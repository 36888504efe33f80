r"""Rules for the product of a signal with a kernel, over whichever axes.

A kernel W of mean 0 is summed over the axes that it shares with the signal x and that the result lacks:

    E[z_u z'_v] = \delta_{uv} sigma_w^2 sum E[x_i x'_i]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._layout import axes_of, from_values, standardize
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, UnpredictableError
from keras_initkit.prediction.operation_rules._elementwise import needed
from keras_initkit.prediction.operation_rules._linear import host_values, measure_values, own_kernels, with_activation
from keras_initkit.prediction.operation_rules._merging import plus
from keras_initkit.prediction.operation_rules._operands import Operand
from keras_initkit.prediction.operation_rules._rule_table import rule


@dataclass(frozen=True)
class Letters:
    """The axes of two factors and of the result, by letter; the first of the result's is that of examples."""

    one: str
    two: str
    out: str


def equation(text: str, ranks: Sequence[int]) -> Letters:
    inputs, arrow, out = text.replace(" ", "").partition("->")
    parts = inputs.split(",")
    if "..." in text:
        many = [rank - len(part.replace("...", "")) for part, rank in zip(parts, ranks, strict=True)]
        spare = [letter for letter in "ABCDEFGHIJKLM" if letter not in text][: max(many)]
        parts = [part.replace("...", "".join(spare[len(spare) - n :])) for part, n in zip(parts, many, strict=True)]
        out = out.replace("...", "".join(spare))
    if len(parts) != 2 or not arrow or any(len(set(part)) != len(part) for part in parts):
        raise UnpredictableError("its equation is not one of two factors")
    return Letters(parts[0], parts[1], out)


def sizes_of(given: Operand, letters: str) -> dict[str, int | None]:
    return dict(zip(letters, given.shape, strict=True))


def by_kernel(x: Operand, kernel: Operand, letters: Letters, bias: Any = None) -> LayerPropagation:
    """Multiplies a signal by a tensor of weights."""
    signal = needed(x.signal).with_margin()
    assert kernel.signal.values is not None
    scale = measure_values(np.asarray(kernel.signal.values(), "float64"), "kernel")
    summed = [letter for letter in letters.one if letter in letters.two and letter not in letters.out]
    lost = [letter for letter in letters.one if letter not in letters.out and letter not in letters.two]
    sizes = sizes_of(kernel, letters.two)
    if lost or letters.one[0] != letters.out[0] or letters.one[0] in letters.two or not summed:
        raise UnpredictableError("it sums over axes that its kernel does not have")
    new = [letter for letter in letters.two if letter not in letters.one]
    fan_in = math.prod(sizes[letter] for letter in summed)  # type: ignore[misc]
    fan_out = math.prod(sizes[letter] for letter in new)  # type: ignore[misc]
    roles = dict(zip(letters.one[1:], axes_of(signal, len(letters.one)), strict=True))
    shape = sizes_of(x, letters.one)
    stays = [letter for letter in letters.out[1:] if letter in letters.one and letter not in letters.two]
    positions = [letter for letter in stays if roles[letter] is not None]
    aside = [letter for letter in stays if roles[letter] is None and shape[letter] != 1]  # units, read alike by all
    order: list[Any] = [roles[letter] for letter in positions]
    # The axes that are summed have lag 0, so what was a position among them is one element of a sum.
    forward = scale.square * fan_in

    def lags(values: Autocorrelation | None) -> Autocorrelation | None:
        if values is None:
            return None
        kept = values.within(order).transposed(np.argsort(np.argsort(order))).map(lambda v: forward * v)
        if not aside:
            return kept
        full = kept.full([shape[letter] for letter in positions])
        if full is None:
            return None
        near = full.near.reshape(full.near.shape + (1,) * len(aside))
        return Autocorrelation(near, np.full((1,) * near.ndim, forward * signal.product_of_units))

    named = {letter: place for place, letter in enumerate([*positions, *aside])}
    axes = tuple(named.get(letter) for letter in letters.out[1:])
    outer = {**shape, **sizes}
    size = tuple(outer[letter] for letter in [*positions, *aside])
    output = Signal(
        0.0,
        forward * signal.second_moment,
        size,
        lags(signal.within_example),
        lags(signal.between_examples),
        gaussian=True,
        sources=kernel.signal.sources,
        axes=axes,
        levels=signal.levels if len(size) == 1 and size == signal.size else None,
    )
    back = scale.square * fan_out

    def backward(gradient: Gradient) -> list[Gradient | None]:
        summed_positions = [letter for letter in summed if roles[letter] is not None]
        common = 0.0 if summed_positions else gradient.common
        found = gradient.scaled(back, sources=kernel.signal.sources,
                                common=None if common is None else common * back)  # fmt: skip
        return [found] + ([None] if kernel.number is not None else [])

    return LayerPropagation(in_order(output), backward)  # type: ignore[arg-type]


@rule("EinsumDense", anywhere=True)
def einsum_dense(call, inputs):
    """Like Dense, over whichever axes the equation sums."""
    layer, tensor = call.layer, call.inputs[0]
    (described,) = own_kernels(layer)
    variable = described.variable
    sources = frozenset({id(variable)})
    kernel = Operand(Signal.unknown((), values=lambda: host_values(variable), sources=sources), variable.shape, None)
    x = Operand(standardize(inputs[0], tensor.shape) if inputs[0].values else inputs[0], tensor.shape, tensor.number)
    letters = equation(layer.equation, [len(tensor.shape), len(variable.shape)])
    found = by_kernel(x, kernel, letters)
    output, outer = found.output, call.outputs[0].shape
    if layer.bias is not None and np.any(host_values(layer.bias)):
        bias = Signal.unknown((), values=lambda: host_values(layer.bias), sources=sources)
        output = replace(plus(output, from_values(bias, outer, axes_of(output, len(outer)))),
                         sources=sources, gaussian=True, identically_distributed=True)  # fmt: skip
    rest = [n for letter, n in zip(letters.out[1:], outer[1:], strict=True) if letter not in letters.two]
    biased = [] if layer.bias is None else [n for n in layer.bias.shape if n != 1]

    def weights(gradient: Gradient, examples: int) -> dict[str, float]:
        if not gradient.white or None in outer[1:]:
            return {}
        squares = {variable.name: examples * math.prod(rest) * x.signal.second_moment * gradient.second_moment}
        if layer.bias is not None and not gradient.balanced:
            met = math.prod(outer[1:]) / math.prod(biased)
            squares[layer.bias.name] = examples * met * gradient.second_moment
        return squares

    return with_activation(layer, replace(found, output=output, weights=weights))


def in_order(x: Signal) -> Signal:
    """Numbers the axes of positions in the order in which the tensor has them."""
    if x.axes is None:
        return x
    order = [axis for axis in x.axes if axis is not None]
    count = iter(range(len(order)))
    axes = tuple(None if axis is None else next(count) for axis in x.axes)
    usual = axes == (*range(len(axes) - 1), None)
    moved = x.map_autocorrelations(lambda lags: lags.transposed(order))
    return replace(x, axes=None if usual else axes, size=tuple(x.size[axis] for axis in order), **moved)
