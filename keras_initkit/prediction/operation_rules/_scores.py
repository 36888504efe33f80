"""Products of two signals: an attention's scores, and the average of its values.

The product q.k of two independent signals has variance n E[q^2] E[k^2], and is Gaussian, as a sum over n units.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._layout import axes_of
from keras_initkit.prediction.algebra._levels import combine, even
from keras_initkit.prediction.algebra._notes import Mixing
from keras_initkit.prediction.algebra._signals import (
    Gradient,
    LayerPropagation,
    Signal,
    UnpredictableError,
    are_independent,
)
from keras_initkit.prediction.operation_rules._elementwise import needed
from keras_initkit.prediction.operation_rules._kernel_products import Letters, in_order, sizes_of
from keras_initkit.prediction.operation_rules._operands import Operand


def scores(one: Operand, two: Operand, letters: Letters) -> LayerPropagation:
    """Multiplies two independent signals and sums over units, as attention does with queries and keys."""
    a, b = needed(one.signal).with_margin(), needed(two.signal).with_margin()
    roles_a = dict(zip(letters.one[1:], axes_of(a, len(letters.one)), strict=True))
    roles_b = dict(zip(letters.two[1:], axes_of(b, len(letters.two)), strict=True))
    shape = {**sizes_of(one, letters.one), **sizes_of(two, letters.two)}
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
    lags: dict[str, Any] = {}
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
    shape = {**sizes_of(weights, letters.one), **sizes_of(values, letters.two)}
    others = [letter for letter in letters.two[1:] if letter != key and roles[letter] is not None]
    queries = [letter for letter in letters.out[1:] if letter in letters.one and letter not in letters.two]
    in_weights = dict(zip(letters.one[1:], axes_of(weights.signal, len(letters.one)), strict=True))
    many = [letter for letter in queries if shape[letter] != 1 and in_weights[letter] is not None]
    if others or len(many) > 1:
        raise UnpredictableError("it mixes along one of several axes of positions")
    if roles[key] is None:
        common: float = v.product_of_units
        between: float | None = v.mean**2
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
