r"""Rules for products of matrices: of a signal with a kernel, of two signals, of an attention's weights with values.

A kernel W of mean 0 is summed over the axes that it shares with the signal x and that the result lacks:

    E[z_u z'_v] = \delta_{uv} sigma_w^2 sum E[x_i x'_i]

The product q.k of two independent signals has variance n E[q^2] E[k^2], and is Gaussian, as a sum over n units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_initkit.prediction._autocorrelation import Autocorrelation
from keras_initkit.prediction._layout import axes_of, from_values, standardize
from keras_initkit.prediction._levels import combine, even
from keras_initkit.prediction._notes import Mixing
from keras_initkit.prediction._rules import rule
from keras_initkit.prediction._rules_arithmetic import Operand, operands
from keras_initkit.prediction._rules_elementwise import needed
from keras_initkit.prediction._rules_linear import host_values, measure_values, own_kernels, with_activation
from keras_initkit.prediction._rules_merging import plus
from keras_initkit.prediction._signals import Gradient, LayerPropagation, Signal, UnpredictableError, are_independent
from keras_initkit.structure._graph import Call


@dataclass(frozen=True)
class Letters:
    """The axes of two factors and of the result, by letter; the first of the result's is that of examples."""

    one: str
    two: str
    out: str


def _equation(text: str, ranks: Sequence[int]) -> Letters:
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


def _matmul(ranks: Sequence[int]) -> Letters:
    one, two = ranks
    if min(ranks) < 2:
        raise UnpredictableError("it multiplies by a vector")
    batch = "ABCDEFGHIJKLM"[: max(one, two) - 2]
    return Letters(batch[max(two - one, 0) :] + "xy", batch[max(one - two, 0) :] + "yz", batch + "xz")


@rule(operations="Einsum Matmul Dot")
def product(call, inputs):
    """Multiplies a signal by a kernel or another signal."""
    given = operands(call, inputs)
    if len(given) != 2:
        raise UnpredictableError("it has not two factors")
    ranks = [len(each.shape) for each in given]
    if type(call.layer).__name__ == "Einsum":
        letters = _equation(call.layer.subscripts, ranks)
    elif type(call.layer).__name__ == "Dot" and ranks[1] != 2:
        raise UnpredictableError("its factors have more than two axes")
    else:
        letters = _matmul(ranks)
    return multiplied(call, given[0], given[1], letters)


def multiplied(call: Call, one: Operand, two: Operand, letters: Letters) -> LayerPropagation:
    """Multiplies two factors and sums over the axes that the result lacks."""
    if one.signal.values is not None:
        found = multiplied(call, two, one, Letters(letters.two, letters.one, letters.out))
        both = one.number is not None and two.number is not None
        return replace(found, backward=lambda g: found.backward(g)[::-1] if both else found.backward(g))
    if two.signal.values is not None:
        return by_kernel(one, two, letters)
    for first, second in ((letters.one, letters.two), (letters.two, letters.one)):
        if first[0] != letters.out[0] or second[0] != letters.out[0]:
            raise UnpredictableError("its factors do not have the examples in front")
    if isinstance(two.signal.note, Mixing):
        found = multiplied(call, two, one, Letters(letters.two, letters.one, letters.out))
        return replace(found, backward=lambda g: found.backward(g)[::-1])
    if isinstance(one.signal.note, Mixing):
        return mixed(one, two, letters)
    return scores(one, two, letters)


def _sizes(given: Operand, letters: str) -> dict[str, int | None]:
    return dict(zip(letters, given.shape, strict=True))


def by_kernel(x: Operand, kernel: Operand, letters: Letters, bias: Any = None) -> LayerPropagation:
    """Multiplies a signal by a tensor of weights."""
    signal = needed(x.signal).with_margin()
    assert kernel.signal.values is not None
    scale = measure_values(np.asarray(kernel.signal.values(), "float64"), "kernel")
    summed = [letter for letter in letters.one if letter in letters.two and letter not in letters.out]
    lost = [letter for letter in letters.one if letter not in letters.out and letter not in letters.two]
    sizes = _sizes(kernel, letters.two)
    if lost or letters.one[0] != letters.out[0] or letters.one[0] in letters.two or not summed:
        raise UnpredictableError("it sums over axes that its kernel does not have")
    new = [letter for letter in letters.two if letter not in letters.one]
    fan_in = math.prod(sizes[letter] for letter in summed)  # type: ignore[misc]
    fan_out = math.prod(sizes[letter] for letter in new)  # type: ignore[misc]
    roles = dict(zip(letters.one[1:], axes_of(signal, len(letters.one)), strict=True))
    shape = _sizes(x, letters.one)
    stays = [letter for letter in letters.out[1:] if letter in letters.one and letter not in letters.two]
    positions = [letter for letter in stays if roles[letter] is not None]
    aside = [letter for letter in stays if roles[letter] is None and shape[letter] != 1]  # units, read alike by all
    order = [roles[letter] for letter in positions]
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
    letters = _equation(layer.equation, [len(tensor.shape), len(variable.shape)])
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


def scores(one: Operand, two: Operand, letters: Letters) -> LayerPropagation:
    """Multiplies two independent signals and sums over units, as attention does with queries and keys."""
    a, b = needed(one.signal).with_margin(), needed(two.signal).with_margin()
    roles_a = dict(zip(letters.one[1:], axes_of(a, len(letters.one)), strict=True))
    roles_b = dict(zip(letters.two[1:], axes_of(b, len(letters.two)), strict=True))
    shape = {**_sizes(one, letters.one), **_sizes(two, letters.two)}
    summed = [letter for letter in letters.one if letter not in letters.out]
    if set(summed) != {letter for letter in letters.two if letter not in letters.out}:
        raise UnpredictableError("it sums over axes of one factor alone")
    if any(roles_a[letter] is not None or roles_b[letter] is not None for letter in summed):
        raise UnpredictableError("it adds up products over positions")
    shared = [letter for letter in letters.out[1:] if letter in letters.one and letter in letters.two]
    if any(roles_a[letter] is not None or roles_b[letter] is not None for letter in shared):
        raise UnpredictableError("it multiplies position by position")
    if not are_independent([a.sources, b.sources]):
        raise UnpredictableError("the branches that it joins are correlated: one kernel or input feeds both")
    n = math.prod(shape[letter] for letter in summed)  # type: ignore[misc]
    crossed = n * (n - 1) * a.product_of_units * b.product_of_units
    rows = [letter for letter in letters.out[1:] if letter in letters.one and letter not in shared]
    columns = [letter for letter in letters.out[1:] if letter in letters.two and letter not in shared]
    in_a = [letter for letter in rows if roles_a[letter] is not None]
    in_b = [letter for letter in columns if roles_b[letter] is not None]

    def kept(x: Signal, name: str, roles: dict, chosen: list[str]) -> Autocorrelation | None:
        values = getattr(x, name)
        order = [roles[letter] for letter in chosen]
        return None if values is None else values.within(order).transposed(np.argsort(np.argsort(order)))

    size_a, size_b = [shape[letter] for letter in in_a], [shape[letter] for letter in in_b]
    lags: dict[str, Autocorrelation | None] = {}
    for name in ("within_example", "between_examples"):
        left, right = kept(a, name, roles_a, in_a), kept(b, name, roles_b, in_b)
        both = None if left is None or right is None else left.outer(right, size_a, size_b)
        lags[name] = None if both is None else both.map(lambda v: n * v + crossed)
    named = {letter: place for place, letter in enumerate([*in_a, *in_b])}
    output = Signal(
        n * a.mean * b.mean,
        n * a.second_moment * b.second_moment + crossed,
        (*size_a, *size_b),
        **lags,
        gaussian=True,
        sources=a.sources | b.sources,
        axes=tuple(named.get(letter) for letter in letters.out[1:]),
    )

    def backward(gradient: Gradient) -> list[Gradient]:
        down = math.prod(shape[letter] for letter in rows), math.prod(shape[letter] for letter in columns)  # type: ignore
        return [
            _of_factor(gradient, b, roles_b, in_b, down[1], True),
            _of_factor(gradient, a, roles_a, in_a, down[0], False),
        ]

    return LayerPropagation(in_order(output), backward)


def _of_factor(
    gradient: Gradient, other: Signal, roles: dict, chosen: list[str], count: int, balanced_rows: bool
) -> Gradient:
    """Returns the gradient of one factor: that of the product times the other, summed over `count` of its vectors."""
    if not gradient.white:
        raise UnpredictableError("it adds up gradients that are correlated between positions")
    second = other.second_moment
    if balanced_rows and gradient.balanced and other.within_example is not None:  # gradients of a softmax add up to 0
        order = [roles[letter] for letter in chosen]
        second -= other.within_example.within(order).off_zero([other.size[axis] for axis in order])
    return gradient.scaled(
        count * max(second, 0.0),
        sources=other.sources,
        balanced=False,
        levels=gradient.levels if balanced_rows else None,
    )


def _levels(note: Mixing, second: float, common: float, rows: int | None) -> np.ndarray | None:
    """Returns the levels of averages, which are larger where there are fewer keys."""
    if note.pairs is None or note.pairs.shape[1] != rows:
        return None
    squares = note.pairs.sum(axis=-1)
    return even(squares * second + np.maximum(note.totals - squares, 0.0) * common)


def _uneven(back: Gradient, levels: np.ndarray | None, note: Mixing, own: float) -> Gradient:
    """Returns the gradient of values, of which some are read by more queries: `own` is what comes without products."""
    assert note.pairs is not None
    given = combine(lambda *each: each[0], levels, np.ones((1, note.pairs.shape[1])))
    if given is None:
        return back
    pairs = note.pairs if len(note.pairs) == len(given) or len(given) == 1 else note.pairs.mean(axis=0, keepdims=True)
    by_key = (pairs * given[..., None]).sum(axis=1)
    more = float(by_key.mean()) / float(note.pairs.sum(axis=1).mean())
    second = back.second_moment + own * (more - 1)
    return replace(back, second_moment=max(second, 0.0), levels=even(by_key))


def mixed(weights: Operand, values: Operand, letters: Letters) -> LayerPropagation:
    """Averages values over positions by an attention's weights."""
    note, v = weights.signal.note, needed(values.signal).with_margin()
    roles = dict(zip(letters.two[1:], axes_of(v, len(letters.two)), strict=True))
    key = letters.one[note.axis]
    if [letter for letter in letters.one if letter not in letters.out] != [key] or key not in letters.two:
        raise UnpredictableError("it sums over other axes than those that its weights add up to 1 over")
    shape = {**_sizes(weights, letters.one), **_sizes(values, letters.two)}
    others = [letter for letter in letters.two[1:] if letter != key and roles[letter] is not None]
    queries = [letter for letter in letters.out[1:] if letter in letters.one and letter not in letters.two]
    in_weights = dict(zip(letters.one[1:], axes_of(weights.signal, len(letters.one)), strict=True))
    many = [letter for letter in queries if shape[letter] != 1 and in_weights[letter] is not None]
    if others or len(many) > 1:
        raise UnpredictableError("it mixes along one of several axes of positions")
    if roles[key] is None:
        common, between = v.product_of_units, v.mean**2
    elif v.within_example is None:
        raise UnpredictableError("the correlation between the positions that it mixes is not known")
    else:
        common = v.within_example.off_zero(v.size)
        between = None if v.between_examples is None else v.between_examples.mean(v.size)
    second = note.squares * v.second_moment + note.products * common
    between_queries = note.overlap * v.second_moment + max(note.total - note.overlap, 0.0) * common
    across = None if between is None else Autocorrelation.white(between, between, len(many))
    named = {letter: place for place, letter in enumerate(many)}
    output = Signal(
        v.mean * math.sqrt(note.total),
        second,
        tuple(shape[letter] for letter in many),
        Autocorrelation.white(second, between_queries, len(many)),
        across,
        gaussian=v.gaussian,
        identically_distributed=v.identically_distributed,
        sources=v.sources,
        axes=tuple(named.get(letter) for letter in letters.out[1:]),
        levels=_levels(note, v.second_moment, common, shape[many[0]]) if many else None,
    )
    summed_units = [letter for letter in letters.two[1:] if letter not in letters.one]
    width = math.prod(shape[letter] for letter in summed_units)  # type: ignore[misc]
    rows = math.prod(shape[letter] for letter in queries)  # type: ignore[misc]
    n = note.size

    def backward(gradient: Gradient) -> list[Gradient]:
        shared = gradient.between_positions
        if shared is None:
            raise UnpredictableError("it adds up gradients that are correlated between positions")
        g = gradient.second_moment
        of_values = rows / n * (note.squares * g + (rows - 1) * note.overlap * shared)
        pairs = n * (n - 1) if n > 1 else 1
        between_keys = rows / pairs * (note.products * g + (rows - 1) * max(note.total - note.overlap, 0) * shared)
        back = gradient.scaled(of_values / g if g else 0.0, white=False, common=between_keys, levels=None)
        if note.pairs is not None and g and shared >= 0:
            back = _uneven(back, gradient.levels, note, rows * note.squares / n * g)
        to_weights = gradient.scaled(
            width * v.second_moment,
            along=width * g * common,
            sources=v.sources,
            white=True,
            common=None,
            levels=gradient.levels,
        )
        return [to_weights, back]

    return LayerPropagation(in_order(output), backward)
