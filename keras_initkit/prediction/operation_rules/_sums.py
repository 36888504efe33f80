"""Rules for sums of tensors, numbers and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from keras_initkit.prediction.algebra._laws import shared
from keras_initkit.prediction.algebra._notes import Centered, Offset, Statistic
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, are_independent
from keras_initkit.prediction.algebra._spread import follow, of_sum
from keras_initkit.prediction.operation_rules._elementwise import affine, needed
from keras_initkit.prediction.operation_rules._merging import one_argument, plus, union
from keras_initkit.prediction.operation_rules._operands import (
    Operand,
    examples_of,
    nothing,
    operands,
    repeats,
    summed,
    to_inputs,
    together,
    with_constants,
)
from keras_initkit.prediction.operation_rules._rule_table import rule
from keras_initkit.structure._graph import Call

_MASKING = 1e4  # what is added to a logit, and is larger, switches it off


def _add(call: Call, given: list[Operand], weights: Sequence[float]) -> LayerPropagation:
    scalars = [each.scalar for each in given]
    signals = [each for each, value in zip(given, scalars, strict=True) if value is None]
    constant = sum(w * value for w, value in zip(weights, scalars, strict=True) if value is not None)
    notes = [each.signal.note for each in signals]
    if len(signals) == 1 and isinstance(notes[0], Statistic) and notes[0].exponent == 1 and notes[0].gain == 1:
        note = replace(notes[0], epsilon=notes[0].epsilon + constant)
        return LayerPropagation(replace(signals[0].signal, note=note), lambda g: to_inputs(call, given, [
            nothing(g) if each in signals else None for each in given]))  # fmt: skip
    first, second = (given[0].signal, given[-1].signal) if len(given) == 2 else (None, None)
    mean = second.note if second is not None and isinstance(second.note, Statistic) else None
    if mean is not None and mean.kind == "mean" and mean.of is first and tuple(weights) == (1.0, -1.0):
        return _centered(call, given, first)
    masks = [each for each in signals if each.signal.values is not None]
    if len(masks) == len(signals) - 1 and len(signals) > 1:
        (place,) = [i for i, each in enumerate(given) if each.signal.values is None]
        x = needed(given[place].signal)
        offset = Offset(x, tuple(each.signal.values for each in masks))  # type: ignore[misc]
        if isinstance(x.note, Offset):
            offset = Offset(x.note.of, (*x.note.values, *offset.values))
        if weights[place] == 1 and any(np.abs(each.signal.values()).max() > _MASKING for each in masks):  # type: ignore
            unknown = Signal.unknown(x.size, note=offset, axes=x.axes)
            return LayerPropagation(unknown, lambda g: to_inputs(call, given, [
                g if i == place else None for i in range(len(given))]))  # fmt: skip
    else:
        offset = None
    if len(signals) == 1:
        found = affine(signals[0].signal, weights[given.index(signals[0])], constant)
        return replace(found, backward=lambda g: to_inputs(call, given, [
            found.backward(g)[0] if each in signals else None for each in given]))  # fmt: skip
    used = [w for w, value in zip(weights, scalars, strict=True) if value is None]
    numbers = {each.number for each in signals}
    if len(numbers) == 1:  # x + x
        found = affine(signals[0].signal, sum(used), constant)
        zero = len(signals) - 1
        return replace(found, backward=lambda g: [found.backward(g)[0], *[nothing(g)] * zero])
    if len({id(each.signal) for each in signals}) == 1:  # what two layers of one kind make of one tensor
        found = affine(signals[0].signal, sum(used), constant)
        return replace(found, backward=lambda g: to_inputs(call, given, with_constants(
            scalars, [g.scaled(w**2) for w in used])))  # fmt: skip
    parts = together(call, signals)
    if not are_independent(part.sources for part in parts):
        total = one_argument([each.signal for each in signals], lambda *f: sum(
            w * each for w, each in zip(used, f, strict=True)), [w**2 for w in used])  # fmt: skip
        return replace(total, backward=lambda g: to_inputs(call, given, with_constants(scalars, total.backward(g))))
    whole: Signal | None = None
    for part, weight in zip(parts, used, strict=True):
        term = affine(part, weight, 0.0).output
        whole = term if whole is None else plus(whole, term)
    assert whole is not None
    output = replace(
        affine(whole, 1.0, constant).output, sources=union(parts), argument=None, function=None, note=offset
    )
    copies = [repeats(each, call.outputs[0].shape) for each in signals]
    _, powers = of_sum([(w**2 * part.second_moment, part.spread) for part, w in zip(parts, used, strict=True)])

    def backward(gradient: Gradient) -> list[Gradient]:
        shape = call.outputs[0].shape
        found = [None if each.signal.values is not None
                 else summed(gradient, number, w**2 * examples_of(each, shape))
                 for each, number, w in zip(signals, copies, used, strict=True)]  # fmt: skip
        found = [part and follow(part, power) for part, power in zip(found, powers, strict=True)]
        if gradient.values is not None and len(parts) == 2 and used == [1.0, 1.0] and not constant:
            found = [part if part is None else replace(part, values=values)
                     for part, values in zip(found, shared(gradient.values, output, *parts), strict=True)]  # fmt: skip
        return to_inputs(call, given, with_constants(scalars, found))

    return LayerPropagation(output, backward)


def _centered(call: Call, given: list[Operand], x: Signal) -> LayerPropagation:
    """x less its mean over the units."""
    shared = x.product_of_units
    output = replace(
        x,
        mean=0.0,
        second_moment=x.second_moment - shared,
        **x.map_autocorrelations(lambda lags: lags.map(lambda v: v - shared)),
        across_units=None,
        argument=None,
        function=None,
        note=Centered(x),
    )
    return LayerPropagation(output, lambda g: [g, nothing(g)])


@rule("Add", operations="Add", anywhere=True)
def add(call, inputs):
    """Adds the inputs."""
    given = operands(call, inputs)
    return _add(call, given, [1.0] * len(given))


@rule("Average", anywhere=True)
def average(call, inputs):
    """Adds the inputs and divides by their number."""
    given = operands(call, inputs)
    return _add(call, given, [1.0 / len(inputs)] * len(inputs))


@rule("Subtract", operations="Subtract", anywhere=True)
def subtract(call, inputs):
    """Subtracts the second input from the first."""
    return _add(call, operands(call, inputs), [1.0, -1.0])


@rule(operations="Negative")
def negative(call, inputs):
    """y = -x."""
    return affine(inputs[0], -1.0, 0.0)
