"""Rules for products of tensors, numbers and tables; normalizations that are written out in operations.

x / sqrt(mean(x^2) + epsilon) is seen by what it does: the mean of squares over many units is nearly a number
(`Statistic`), and what is divided by its root has second moment 1, whatever it was before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_initkit.prediction.algebra._levels import combine, even, inverse_levels
from keras_initkit.prediction.algebra._notes import Centered, Offset, Statistic
from keras_initkit.prediction.algebra._signals import (
    Gradient,
    LayerPropagation,
    Signal,
    UnpredictableError,
    are_independent,
)
from keras_initkit.prediction.operation_rules._elementwise import affine
from keras_initkit.prediction.operation_rules._merging import one_argument, union
from keras_initkit.prediction.operation_rules._operands import (
    Operand,
    nothing,
    operands,
    repeats,
    to_inputs,
    together,
    with_constants,
)
from keras_initkit.prediction.operation_rules._rule_table import rule
from keras_initkit.structure._graph import Call


@rule("Multiply", operations="Multiply", anywhere=True)
def multiply(call, inputs):
    """E[(a b)^2] = E[a^2] E[b^2]; the gradient of a is that of the product times b."""
    return _multiply(call, operands(call, inputs))


@rule(operations="TrueDivide Divide")
def divide(call, inputs):
    """Multiplies by the reciprocal of a number, a table, or the root of a variance."""
    one, other = operands(call, inputs)
    x = other.signal
    if x.values is not None:
        values = x.values
        inverse = replace(x, values=lambda: 1 / np.asarray(values(), "float64"))
    elif isinstance(x.note, Statistic):
        inverse = replace(x, note=replace(x.note, exponent=-x.note.exponent, gain=1 / x.note.gain))
    else:
        raise UnpredictableError("it divides by a signal")
    return _multiply(call, [one, Operand(inverse, other.shape, other.number)])


@rule(operations="Where")
def where(call, inputs):
    """Keeps a signal where a known mask says so, and is 0 elsewhere: multiplies by the mask."""
    condition, yes, no = operands(call, inputs)
    values = condition.signal.values
    kept = next((place for place, other in ((1, no), (2, yes)) if other.scalar == 0), None)
    if values is None or kept is None:
        raise UnpredictableError("it chooses between two signals, or by a mask that is not known")
    mask = replace(condition.signal, values=lambda: ((np.asarray(values()) > 0.5) == (kept == 1)).astype("float64"))
    x = (condition, yes, no)[kept]
    found = _multiply(call, [Operand(mask, condition.shape, None), x])

    def backward(gradient: Gradient) -> list[Gradient]:
        parts = [nothing(gradient)] * 3
        parts[kept : kept + 1] = found.backward(gradient)
        return to_inputs(call, [condition, yes, no], parts)

    return replace(found, backward=backward)


def _multiply(call: Call, given: list[Operand]) -> LayerPropagation:
    scalars = [each.scalar for each in given]
    signals = [each for each, value in zip(given, scalars, strict=True) if value is None]
    scale = math.prod(value for value in scalars if value is not None)
    if len(signals) == 1:
        x = signals[0].signal
        if isinstance(x.note, Statistic):
            found = LayerPropagation(replace(x, note=replace(x.note, gain=x.note.gain * scale)), lambda g: [nothing(g)])
        elif isinstance(x.note, Offset):
            found = _scaled_offset(x, scale)
        else:
            found = affine(x, scale, 0.0)
        return replace(found, backward=lambda g: to_inputs(call, given, with_constants(scalars, found.backward(g))))
    if len(signals) == 2:
        for one, by in (signals, signals[::-1]):
            if isinstance(by.signal.note, Statistic) and by.signal.note.exponent == -0.5:
                found = _normalized(one.signal, by.signal.note, scale)

                def backward(gradient: Gradient, one: Operand = one, found: Any = found) -> list[Gradient]:
                    parts = [found.backward(gradient)[0] if each is one else nothing(gradient) for each in given]
                    return to_inputs(call, given, parts)

                return replace(found, backward=backward)
    parts = together(call, signals)
    if not are_independent(part.sources for part in parts):
        product = one_argument([each.signal for each in signals], lambda *f: math.prod(f, start=scale), None)
        return replace(product, backward=lambda g: to_inputs(
            call, given, with_constants(scalars, product.backward(g))))  # fmt: skip
    output = affine(product_of(parts), scale, 0.0).output
    copies = [repeats(each, call.outputs[0].shape) for each in signals]

    def back(gradient: Gradient) -> list[Gradient]:
        found: list[Gradient | None] = []
        for a, each, number in zip(parts, signals, copies, strict=True):
            others = [b for b in parts if b is not a]
            factor = scale**2 * math.prod(b.second_moment for b in others)
            between = scale**2 * math.prod(
                b.second_moment if b.within_example is None else b.within_example.off_zero(b.size) for b in others
            )
            shared = gradient.between_positions
            part: Gradient | None = None
            if number == 1:
                level = combine(lambda *each: math.prod(each), *(b.levels for b in others))
                part = gradient.weighed(factor, level)
                part = replace(part, common=None if shared is None else shared * between)
            elif each.signal.values is None and not gradient.batched:
                if shared is None or number is None:
                    raise UnpredictableError("its copies add up gradients that are correlated between positions")
                second = number * factor * gradient.second_moment + number * (number - 1) * between * shared
                part = gradient.scaled(
                    second / max(gradient.second_moment, 1e-300), white=True, common=None, levels=None
                )
            found.append(part)
        return to_inputs(call, given, with_constants(scalars, found))

    return LayerPropagation(replace(output, argument=None, function=None), back)


def _scaled_offset(x: Signal, scale: float) -> LayerPropagation:
    """Multiplies logits and what was added to them."""
    note = Offset(
        affine(x.note.of, scale, 0.0).output,
        tuple(lambda values=values: scale * np.asarray(values(), "float64") for values in x.note.values),  # type: ignore[misc]
    )
    whole = affine(x, scale, 0.0).output if x.known else x
    return LayerPropagation(replace(whole, note=note), lambda gradient: [gradient.scaled(scale**2)])


def product_of(parts: Sequence[Signal]) -> Signal:
    """Returns the product of independent signals of one shape."""
    lags: dict[str, Any] = {}
    for name in ("within_example", "between_examples"):
        known = [getattr(signal, name) for signal in parts]
        lags[name] = None if any(values is None for values in known) else math.prod(known[1:], start=known[0])
    product = combine(lambda *each: math.prod(each), *(part.levels for part in parts))
    across = None
    if any(part.across_units is not None for part in parts):
        across = math.prod(part.product_of_units for part in parts)
    return Signal(
        math.prod(signal.mean for signal in parts),
        math.prod(signal.second_moment for signal in parts),
        parts[0].size,
        **lags,
        identically_distributed=all(signal.identically_distributed for signal in parts),
        sources=union(parts),
        axes=parts[0].axes,
        across_units=across,
        levels=None if product is None else even(product),
        spread=max((part.spread for part in parts if part.spread is not None), default=None),
    )


def _normalized(x: Signal, by: Statistic, scale: float) -> LayerPropagation:
    """Multiplies x by gain / sqrt(multiple s + epsilon), where s is its own mean square or variance."""
    centered = by.kind == "variance"
    if not (x is by.of or (centered and isinstance(x.note, Centered) and x.note.of is by.of)):
        raise UnpredictableError("it divides by a statistic of another tensor")
    if centered and not isinstance(x.note, Centered):
        raise UnpredictableError("it divides by a standard deviation without taking out the mean")
    gain = (by.gain * scale) ** 2
    if not x.known:
        output = Signal(0.0 if centered else math.nan, gain / by.multiple, x.size, axes=x.axes)
        if not centered:
            raise UnpredictableError("its input is not predicted, and its output keeps the mean of the input")
        return LayerPropagation(output, _unknown_scale)
    if x.second_moment <= 0:
        raise UnpredictableError("its input has no variance")
    factor = gain / (by.multiple * x.second_moment + by.epsilon)
    output = replace(affine(x, math.sqrt(factor), 0.0).output, profile=(), levels=None, argument=None, function=None)
    inverse = inverse_levels(x, 0.0, by.epsilon / by.multiple)
    return LayerPropagation(output, lambda gradient: [gradient.weighed(factor, inverse)])


def _unknown_scale(gradient: Gradient) -> list[Gradient]:
    raise UnpredictableError("the variance that it divides by is not known")


def statistic_of(x: Signal, power: float) -> LayerPropagation | None:
    """Raises a statistic to a power; `None` where the signal is none."""
    note = x.note
    if not isinstance(note, Statistic):
        return None
    changed = replace(x, note=replace(note, exponent=note.exponent * power, gain=note.gain**power))
    return LayerPropagation(changed, lambda g: [nothing(g)])
