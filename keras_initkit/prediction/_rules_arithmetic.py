"""Rules for sums and products of tensors, numbers and tables; normalizations that are written out in operations.

x / sqrt(mean(x^2) + epsilon) is seen by what it does: the mean of squares over many units is nearly a number
(`Statistic`), and what is divided by its root has second moment 1, whatever it was before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_initkit.prediction._layout import broadcast, joint_axes
from keras_initkit.prediction._levels import combine, even, inverse_levels
from keras_initkit.prediction._notes import Centered, Offset, Statistic
from keras_initkit.prediction._rules import rule
from keras_initkit.prediction._rules_elementwise import affine, needed
from keras_initkit.prediction._rules_merging import one_argument, plus, union
from keras_initkit.prediction._signals import Gradient, LayerPropagation, Signal, UnpredictableError, are_independent
from keras_initkit.structure._graph import Call, Tensor

_MASKING = 1e4  # what is added to a logit, and is larger, switches it off


@dataclass
class Operand:
    """An argument of an operation: a tensor's signal, or a number or array."""

    signal: Signal
    shape: tuple[int | None, ...]
    number: int | None  # of the tensor

    @property
    def scalar(self) -> float | None:
        """Its value, where all elements have one."""
        if self.signal.values is None:
            return None
        values = np.asarray(self.signal.values(), "float64")
        return float(values.flat[0]) if values.size and np.ptp(values) == 0 else None


def operands(call: Call, inputs: Sequence[Signal]) -> list[Operand]:
    """Returns the arguments of a call that are tensors or numbers, in their order."""
    signals = {tensor.number: signal for tensor, signal in zip(call.inputs, inputs, strict=True)}
    found = []
    for each in keras.tree.flatten((call.args, dict(call.kwargs))):
        if isinstance(each, Tensor):
            found.append(Operand(signals[each.number], each.shape, each.number))
        elif isinstance(each, int | float | np.ndarray | np.generic) or keras.ops.is_tensor(each):
            array = np.asarray(keras.ops.convert_to_numpy(each) if keras.ops.is_tensor(each) else each, "float64")
            found.append(Operand(Signal.unknown((), values=lambda array=array: array), array.shape, None))
    return found


def _gradients(call: Call, given: Sequence[Operand], parts: Sequence[Gradient | None]) -> list[Gradient]:
    """Returns the gradients of a call's inputs from those of its operands."""
    return [part for operand, part in zip(given, parts, strict=True) if operand.number is not None]  # type: ignore


def nothing(gradient: Gradient) -> Gradient:
    """A gradient that is negligible."""
    return gradient.scaled(0.0, sources=frozenset(), white=True, common=None)


def _together(call: Call, given: Sequence[Operand]) -> list[Signal]:
    """Returns the operands broadcast to the shape of the output."""
    shape = call.outputs[0].shape
    axes = joint_axes([each.signal for each in given], [each.shape for each in given], shape)
    return [broadcast(needed_or_values(each.signal), each.shape, shape, axes) for each in given]


def needed_or_values(x: Signal) -> Signal:
    """Returns a signal that is known by its moments or its values."""
    return x if x.values is not None else needed(x)


def _repeats(given: Operand, shape: Sequence[int | None]) -> float | None:
    """Returns how often an operand is repeated to reach a shape; `None` where that is not known."""
    own = (1,) * (len(shape) - len(given.shape)) + tuple(given.shape)
    grown = [m for n, m in zip(own[1:], shape[1:], strict=True) if n == 1 and m != 1]
    return None if None in grown else math.prod(m for m in grown if m is not None)


def _summed(gradient: Gradient, copies: float | None, factor: float) -> Gradient:
    """Adds up the gradients of copies."""
    if copies == 1:
        return gradient.scaled(factor)
    if copies is None or gradient.between_positions is None:
        raise UnpredictableError("its copies add up gradients that are correlated between neighboring positions")
    together = copies + copies * (copies - 1) * gradient.between_positions / max(gradient.second_moment, 1e-300)
    return gradient.scaled(factor * together, white=True, common=None, levels=None)


def _add(call: Call, given: list[Operand], weights: Sequence[float]) -> LayerPropagation:
    scalars = [each.scalar for each in given]
    signals = [each for each, value in zip(given, scalars, strict=True) if value is None]
    constant = sum(w * value for w, value in zip(weights, scalars, strict=True) if value is not None)
    notes = [each.signal.note for each in signals]
    if len(signals) == 1 and isinstance(notes[0], Statistic) and notes[0].exponent == 1 and notes[0].gain == 1:
        note = replace(notes[0], epsilon=notes[0].epsilon + constant)
        return LayerPropagation(replace(signals[0].signal, note=note), lambda g: _gradients(call, given, [
            nothing(g) if each in signals else None for each in given]))  # fmt: skip
    first, second = (given[0].signal, given[-1].signal) if len(given) == 2 else (None, None)
    mean = second.note if second is not None and isinstance(second.note, Statistic) else None
    if mean is not None and mean.kind == "mean" and mean.of is first and tuple(weights) == (1.0, -1.0):
        return _centered(call, given, first)
    masks = [each for each in signals if each.signal.values is not None]
    if len(masks) == len(signals) - 1 and len(signals) > 1:
        (place,) = [i for i, each in enumerate(given) if each.signal.values is None]
        x = needed(given[place].signal)
        offset = Offset(x, tuple(each.signal.values for each in masks))  # type: ignore[arg-type]
        if isinstance(x.note, Offset):
            offset = Offset(x.note.of, (*x.note.values, *offset.values))
        if weights[place] == 1 and any(np.abs(each.signal.values()).max() > _MASKING for each in masks):  # type: ignore
            unknown = Signal.unknown(x.size, note=offset, axes=x.axes)
            return LayerPropagation(unknown, lambda g: _gradients(call, given, [
                g if i == place else None for i in range(len(given))]))  # fmt: skip
    else:
        offset = None
    if len(signals) == 1:
        found = affine(signals[0].signal, weights[given.index(signals[0])], constant)
        return replace(found, backward=lambda g: _gradients(call, given, [
            found.backward(g)[0] if each in signals else None for each in given]))  # fmt: skip
    used = [w for w, value in zip(weights, scalars, strict=True) if value is None]
    numbers = {each.number for each in signals}
    if len(numbers) == 1:  # x + x
        found = affine(signals[0].signal, sum(used), constant)
        zero = len(signals) - 1
        return replace(found, backward=lambda g: [found.backward(g)[0], *[nothing(g)] * zero])
    parts = _together(call, signals)
    if not are_independent(part.sources for part in parts):
        total = one_argument([each.signal for each in signals], lambda *f: sum(
            w * each for w, each in zip(used, f, strict=True)), [w**2 for w in used])  # fmt: skip
        return replace(total, backward=lambda g: _gradients(call, given, _with_constants(scalars, total.backward(g))))
    summed: Signal | None = None
    for part, weight in zip(parts, used, strict=True):
        term = affine(part, weight, 0.0).output
        summed = term if summed is None else plus(summed, term)
    assert summed is not None
    summed = affine(summed, 1.0, constant).output
    output = replace(summed, sources=union(parts), argument=None, function=None, note=offset)
    copies = [_repeats(each, call.outputs[0].shape) for each in signals]

    def backward(gradient: Gradient) -> list[Gradient]:
        found = [None if each.signal.values is not None else _summed(gradient, number, w**2)
                 for each, number, w in zip(signals, copies, used, strict=True)]  # fmt: skip
        return _gradients(call, given, _with_constants(scalars, found))

    return LayerPropagation(output, backward)


def _with_constants(scalars: Sequence[float | None], found: Sequence[Any]) -> list[Any]:
    left = iter(found)
    return [None if value is not None else next(left) for value in scalars]


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
        return replace(found, backward=lambda g: _gradients(call, given, _with_constants(scalars, found.backward(g))))
    if len(signals) == 2:
        for x, by in (signals, signals[::-1]):
            if isinstance(by.signal.note, Statistic) and by.signal.note.exponent == -0.5:
                found = _normalized(x.signal, by.signal.note, scale)

                def backward(gradient: Gradient, x: Operand = x, found: Any = found) -> list[Gradient]:
                    parts = [found.backward(gradient)[0] if each is x else nothing(gradient) for each in given]
                    return _gradients(call, given, parts)

                return replace(found, backward=backward)
    parts = _together(call, signals)
    if not are_independent(part.sources for part in parts):
        product = one_argument([each.signal for each in signals], lambda *f: math.prod(f, start=scale), None)
        return replace(product, backward=lambda g: _gradients(
            call, given, _with_constants(scalars, product.backward(g))))  # fmt: skip
    output = affine(product_of(parts), scale, 0.0).output
    copies = [_repeats(each, call.outputs[0].shape) for each in signals]

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
            elif each.signal.values is None:
                if shared is None or number is None:
                    raise UnpredictableError("its copies add up gradients that are correlated between positions")
                second = number * factor * gradient.second_moment + number * (number - 1) * between * shared
                part = gradient.scaled(
                    second / max(gradient.second_moment, 1e-300), white=True, common=None, levels=None
                )
            found.append(part)
        return _gradients(call, given, _with_constants(scalars, found))

    return LayerPropagation(replace(output, argument=None, function=None), back)


def _scaled_offset(x: Signal, scale: float) -> LayerPropagation:
    """Multiplies logits and what was added to them."""
    note = Offset(
        affine(x.note.of, scale, 0.0).output,
        tuple(lambda values=values: scale * np.asarray(values(), "float64") for values in x.note.values),
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
