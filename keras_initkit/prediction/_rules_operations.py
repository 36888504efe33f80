"""Rules for operations that move elements, choose them, average them, or apply a function to each."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_initkit.prediction._activation import activate
from keras_initkit.prediction._autocorrelation import Autocorrelation
from keras_initkit.prediction._layout import arrange, axes_of, broadcast, reshape, transpose, usual_axes
from keras_initkit.prediction._notes import Centered, Squared, Statistic
from keras_initkit.prediction._rules import rule
from keras_initkit.prediction._rules_arithmetic import nothing, operands, statistic_of
from keras_initkit.prediction._rules_elementwise import needed
from keras_initkit.prediction._rules_linear import host_values
from keras_initkit.prediction._signals import (
    Gradient,
    LayerPropagation,
    Signal,
    UnpredictableError,
    add_gradients,
)
from keras_initkit.structure._graph import Call

_FREE = 2  # examples that a graph is traced for, where their number is free


def _carried(x: Signal, output: Callable[[], Signal]) -> LayerPropagation:
    """Moves the elements of a signal."""
    return LayerPropagation(output(), lambda gradient: [gradient])


@rule("Reshape", "Flatten", operations="Reshape ExpandDims Squeeze", anywhere=True)
def reshaped(call, inputs):
    """Splits and merges axes."""
    x = needed(inputs[0])
    return _carried(x, lambda: reshape(x, call.inputs[0].shape, call.outputs[0].shape))


@rule("Permute", operations="Transpose Moveaxis Swapaxes", anywhere=True)
def transposed(call, inputs):
    """Reorders axes."""
    x, shape = needed(inputs[0]), call.inputs[0].shape
    order = _order(call.layer, len(shape))
    return _carried(x, lambda: transpose(x, shape, order))


def _order(layer: Any, rank: int) -> list[int]:
    """Returns, for each axis of the output, that of the input."""
    if isinstance(layer, keras.layers.Permute):
        return [0, *layer.dims]
    axes = np.arange(rank)
    kind = type(layer).__name__
    if kind == "Transpose":
        return list(axes[::-1] if layer.axes is None else axes[list(layer.axes)])
    marked = np.zeros(range(1, rank + 1))  # sizes that name the axes
    if kind == "Swapaxes":
        moved = np.swapaxes(marked, layer.axis1, layer.axis2)
    else:
        moved = np.moveaxis(marked, layer.source, layer.destination)
    return [size - 1 for size in moved.shape]


@rule(operations="BroadcastTo Tile Repeat")
def repeated(call, inputs):
    """Copies elements; the gradients of the copies add up."""
    x, before, after = needed(inputs[0]), call.inputs[0].shape, call.outputs[0].shape
    before = (1,) * (len(after) - len(before)) + tuple(before)
    axes = list(axes_of(x, len(before)))
    grown = [place for place in range(1, len(after)) if before[place] != after[place]]
    if any(before[place] is None or after[place] is None for place in grown) or before[0] != after[0]:
        raise UnpredictableError("it repeats examples, or an axis of unknown size")
    if any(before[place] != 1 and axes[place - 1] is not None for place in grown):
        raise UnpredictableError("it repeats positions that are there already")
    count = iter(range(len(after)))
    wanted = [axis is not None or (place + 1 in grown and before[place + 1] == 1) for place, axis in enumerate(axes)]
    shape = tuple(1 if place in grown and before[place] == 1 else n for place, n in enumerate(after))
    inner = x if shape == before else replace(x)
    named = tuple(next(count) if each else None for each in wanted)
    output = broadcast(inner, shape, after, named)
    copies = math.prod(after[place] // before[place] for place in grown if wanted[place - 1])
    of_units = math.prod(after[place] // before[place] for place in grown if not wanted[place - 1])

    def backward(gradient: Gradient) -> list[Gradient]:
        gradient = gradient.scaled(of_units)  # copies of units go into different weights
        if copies == 1:
            return [gradient]
        between = gradient.between_positions
        if between is None:
            raise UnpredictableError("its copies add up gradients that are correlated between neighboring positions")
        together = copies + copies * (copies - 1) * between / max(gradient.second_moment, 1e-300)
        return [gradient.scaled(together, white=True, common=None)]

    return LayerPropagation(replace(output, gaussian=x.gaussian), backward)


@rule(operations="GetItem Slice")
def chosen(call, inputs):
    """Keeps some elements; the others have no gradient."""
    x, shape = needed(inputs[0]).with_margin(), call.inputs[0].shape
    if type(call.layer).__name__ == "Slice":
        starts = call.args[1] if len(call.args) > 1 else call.kwargs["start_indices"]
        sizes = [n if n != -1 else None for n in call.layer.shape]
        key = tuple(slice(int(a), None if n is None else int(a) + int(n)) for a, n in zip(starts, sizes, strict=True))
    else:
        key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    return _cut(x, shape, _whole_key(key, len(shape)))


def _whole_key(key: Any, rank: int) -> list[Any]:
    """Returns an index for each axis and each new axis."""
    key = list(key) if isinstance(key, tuple | list) else [key]
    if not all(isinstance(each, int | slice) or each is None or each is Ellipsis for each in key):
        raise UnpredictableError("it reads elements at places that depend on a tensor")
    named = sum(each is not None and each is not Ellipsis for each in key)
    if Ellipsis not in key:
        key.append(Ellipsis)
    place = key.index(Ellipsis)
    return key[:place] + [slice(None)] * (rank - named) + key[place + 1 :]


def _cut(x: Signal, shape: Sequence[int | None], key: list[Any]) -> LayerPropagation:
    axes, place = axes_of(x, len(shape)), 0
    kept, sizes, cuts = [], [], []
    kept_units = kept_positions = 1.0
    steps = {}
    for each in key:
        if each is None:
            kept.append(None)
            sizes.append(1)
            continue
        n = shape[place]
        if place == 0:
            if not (isinstance(each, slice) and each.start in (None, 0) and each.stop in (None, n, _FREE)):
                raise UnpredictableError("it chooses examples")
            place += 1
            continue
        axis = axes[place - 1]
        if each != slice(None) and n is None:
            raise UnpredictableError("it chooses from an axis of unknown size")
        places = np.arange(n or 1)[each] if n is not None else np.arange(1)
        many = n if n is None or each == slice(None) else int(np.size(places))
        if not isinstance(each, int):
            kept.append(axis)
            sizes.append(many)
        if n is not None and many != n:
            if axis is None:
                kept_units *= np.size(places) / n
                cuts.append((*np.ravel(places)[:1].tolist(), np.size(places), place, int(np.ptp(places))))
            else:
                kept_positions *= np.size(places) / n
                if np.size(places) > 1:
                    steps[axis] = int(np.ravel(places)[1] - np.ravel(places)[0])
        place += 1
    moved = cuts or steps or kept != list(axes)
    output = arrange(replace(x, argument=None, function=None) if moved else x, kept, sizes)
    if any(abs(step) != 1 for step in steps.values()):
        strides = [abs(steps.get(axis, 1)) for axis in kept if axis is not None]
        output = replace(output, **output.map_autocorrelations(lambda lags: lags.strided(strides)))
    if kept_positions != 1:
        output = replace(output, profile=())
    sources = frozenset({("cut", source, tuple(cuts)) for source in x.sources}) if cuts else x.sources
    output = replace(output, sources=sources, note=None)
    share = kept_units * kept_positions

    def backward(gradient: Gradient) -> list[Gradient]:
        tagged = frozenset({(source, tuple(cuts)) for source in gradient.sources}) if cuts else gradient.sources
        between = gradient.between_positions
        common = None if between is None else between * kept_units * kept_positions**2
        return [gradient.scaled(share, sources=tagged, common=common)]

    return LayerPropagation(output, backward)


@rule(operations="Split Unstack")
def split(call, inputs):
    """Cuts a tensor along an axis."""
    x, shape = needed(inputs[0]).with_margin(), call.inputs[0].shape
    axis = call.layer.axis % len(shape)
    parts, start = [], 0
    for tensor in call.outputs:
        gone = len(tensor.shape) < len(shape)
        size = 1 if gone else tensor.shape[axis]
        index = start if gone else slice(start, start + size)
        parts.append(_cut(x, shape, [index if place == axis else slice(None) for place in range(len(shape))]))
        start += size

    def backward(gradients: list[Gradient | None]) -> list[Gradient]:
        backs = [part.backward(g)[0] for part, g in zip(parts, gradients, strict=True) if g is not None]
        if len(backs) < len(gradients):
            raise UnpredictableError("the gradient of one of its outputs is not known")
        return [add_gradients(backs)]

    first, *others = (part.output for part in parts)
    return LayerPropagation(first, backward if others else parts[0].backward, others=tuple(others))


@rule(operations="Mean Sum Var")
def averaged(call, inputs):
    """Averages or adds up along axes: a statistic if they hold the units of a position."""
    x, shape, kind = inputs[0], call.inputs[0].shape, type(call.layer).__name__
    over = call.layer.axis
    places = range(len(shape)) if over is None else [over] if isinstance(over, int) else over
    places = sorted(place % len(shape) for place in places)
    axes = axes_of(x, len(shape)) if x.known or x.axes else usual_axes(len(shape))
    if 0 in places or any(shape[place] is None for place in places):
        raise UnpredictableError("it averages over examples, or over an axis of unknown size")
    units = [place for place in range(1, len(shape)) if axes[place - 1] is None and shape[place] != 1]
    if units and units == [place for place in places if shape[place] != 1]:
        found = _over_units(x, kind, math.prod(shape[place] for place in units))
        if found is not None:
            return LayerPropagation(found, lambda g: [nothing(g)])
    if kind == "Var" or not x.known:
        raise UnpredictableError("its input is not predicted" if kind != "Var" else "it averages over positions")
    return _over_positions(call, x.with_margin(), places, axes, kind == "Sum")


def _over_units(x: Signal, kind: str, count: int) -> Signal | None:
    """Returns a signal that says what was averaged."""
    multiple = count if kind == "Sum" else 1.0
    empty = Signal.unknown(x.size)
    if kind == "Var":
        return replace(empty, note=Statistic(x, "variance"))
    if isinstance(x.note, Squared):
        of = x.note.of
        if isinstance(of.note, Centered):
            return replace(empty, note=Statistic(of.note.of, "variance", multiple))
        return replace(empty, note=Statistic(of, "mean_square", multiple))
    if kind == "Mean":
        return replace(empty, note=Statistic(x, "mean"))
    return None


def _over_positions(call: Call, x: Signal, places: list[int], axes: Sequence, add: bool) -> LayerPropagation:
    shape = call.inputs[0].shape
    gone = [axes[place - 1] for place in places if axes[place - 1] is not None]
    count = math.prod(shape[place] for place in places)
    over_units = math.prod(shape[place] for place in places if axes[place - 1] is None)
    if x.within_example is None:
        raise UnpredictableError("the correlation between positions is not known")
    if over_units > 1 and len(gone):
        raise UnpredictableError("it averages over units and positions at once")
    sizes = [x.size[axis] for axis in gone]
    kept = [axis for axis in axes if axis is not None and axis not in gone]

    def average(lags: Autocorrelation | None) -> Autocorrelation | None:
        if lags is None:
            return None
        if not gone:
            return lags.map(lambda v: v / over_units + x.product_of_units * (1 - 1 / over_units))
        mean = lags.within(gone).mean(sizes)
        left = lags.within(kept)
        if kept and lags.zero > 0 and not left.constant():  # the kept axes are taken to be like those before
            return left.map(lambda v: v * mean / lags.zero)
        return Autocorrelation.white(mean, mean, len(kept))

    own, other = average(x.within_example), average(x.between_examples)
    assert own is not None
    factor = count if add else 1.0
    keep = call.layer.keepdims
    left = [
        (None if place + 1 in places else axis, 1 if place + 1 in places else shape[place + 1])
        for place, axis in enumerate(axes) if keep or place + 1 not in places
    ]  # fmt: skip
    numbers = {axis: place for place, axis in enumerate(axis for axis, _ in left if axis is not None)}
    output = replace(
        x,
        mean=x.mean * factor,
        second_moment=own.zero * factor**2,
        size=tuple(n for axis, n in left if axis is not None),
        within_example=own.map(lambda v: v * factor**2),
        between_examples=None if other is None else other.map(lambda v: v * factor**2),
        axes=tuple(None if axis is None else numbers[axis] for axis, _ in left),
        across_units=None,
        argument=None,
        function=None,
        profile=(),
    )
    back = factor**2 / count**2

    def backward(gradient: Gradient) -> list[Gradient]:
        return [gradient.scaled(back, white=count == 1, common=gradient.second_moment * back)]

    return LayerPropagation(output, backward)


@rule(operations="ZerosLike OnesLike")
def filled(call, inputs):
    """A tensor of one number."""
    value = float(type(call.layer).__name__ == "OnesLike")
    signal = Signal.unknown(inputs[0].size, values=lambda: np.full((1,), value))
    return LayerPropagation(signal, lambda gradient: [nothing(gradient)])


@rule(operations="FFT2")
def fourier(call, inputs):
    """The transform over the last two axes keeps the energy, half of which is that of the real part."""
    x, shape = needed(inputs[0]).with_margin(), call.inputs[0].shape
    imaginary = inputs[1].values
    if imaginary is None or np.any(imaginary()) or None in shape[-2:] or len(shape) < 3:
        raise UnpredictableError("its input is complex, or its sizes are not known")
    factor = shape[-1] * shape[-2] / 2
    second = x.second_moment * factor
    size = tuple(shape[1:-1])
    lags = Autocorrelation.white(second, 0.0, len(size))
    other = Autocorrelation.white(0.0, 0.0, len(size))
    output = Signal(0.0, second, size, lags, other, sources=x.sources)

    def backward(gradients: list[Gradient | None]) -> list[Gradient]:
        real, unused = gradients
        if real is None or unused is None or unused.second_moment > 0:
            raise UnpredictableError("its imaginary part is read")
        if not real.white:
            raise UnpredictableError("it adds up gradients that are correlated between positions")
        return [real.scaled(factor), nothing(real)]

    return LayerPropagation(output, backward, others=(output,))


@rule(operations="Square")
def square(call, inputs):
    """y = x^2."""
    return _squared(inputs[0])


def _squared(x: Signal) -> LayerPropagation:
    note = Squared(x)
    if x.known and x.gaussian and x.identically_distributed:
        found = activate(_square, replace(x, note=None))
        return replace(found, output=replace(found.output, note=note))

    def backward(gradient: Gradient) -> list[Gradient]:
        if gradient.second_moment == 0:
            return [nothing(gradient)]
        raise UnpredictableError("it squares what is not Gaussian")

    return LayerPropagation(Signal.unknown(x.size, axes=x.axes, note=note), backward)


def _square(z):
    return z * z


@rule(operations="Sqrt Rsqrt Reciprocal")
def root(call, inputs):
    """The root of a statistic, as normalizations take it."""
    power = {"Sqrt": 0.5, "Rsqrt": -0.5, "Reciprocal": -1.0}[type(call.layer).__name__]
    found = statistic_of(inputs[0], power)
    if found is None:
        raise UnpredictableError("it takes the root of a signal")
    return found


@rule(operations="Power")
def power(call, inputs):
    """y = x^p for a number p."""
    given = operands(call, inputs)
    exponent = given[1].scalar if len(given) == 2 else None
    if exponent is None:
        raise UnpredictableError("its exponent is no number")
    found = statistic_of(inputs[0], exponent)
    if found is not None:
        return found
    if exponent == 2:
        return _squared(inputs[0])
    return activate(_with_numbers(np.power, exponent), needed(inputs[0]))


@rule(operations="Maximum Minimum")
def extreme(call, inputs):
    """The larger of x and a number."""
    given = operands(call, inputs)
    numbers = [each.scalar for each in given]
    bound = next((value for value in numbers if value is not None), None)
    if bound is None or len(given) != 2:
        raise UnpredictableError("the distribution of an extreme of several branches is not tracked")
    (x,) = [each.signal for each, value in zip(given, numbers, strict=True) if value is None]
    if x.note is not None and not x.known:  # the floor under a variance
        return LayerPropagation(x, lambda g: [nothing(g)])
    function = np.maximum if type(call.layer).__name__ == "Maximum" else np.minimum
    return activate(_with_numbers(function, bound), needed(x))


@functools.lru_cache(maxsize=256)
def _with_numbers(function: Callable, *numbers: float) -> Callable:
    return lambda z: function(np.asarray(keras.ops.convert_to_numpy(z)), *numbers)


_ELEMENTWISE = (
    "Relu Relu6 Silu Gelu Tanh Sigmoid HardSigmoid HardSilu HardTanh Elu Selu Celu LeakyRelu Softplus Softsign "
    "SoftShrink HardShrink TanhShrink Squareplus LogSigmoid Exp Expm1 Absolute Abs Erf Clip"
)


@rule(operations=_ELEMENTWISE)
def elementwise(call, inputs):
    """y = f(x) for the operation f."""
    if inputs[0].values is not None:
        raise UnpredictableError("its input holds fixed values")
    return activate(_function(type(call.layer), _config(call.layer)), needed(inputs[0]).with_margin())


def _config(operation: Any) -> tuple:
    return tuple((name, value) for name, value in sorted(vars(operation).items())
                 if not name.startswith("_") and name != "name" and isinstance(value, int | float | str | None)
                 )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _function(kind: type, config: tuple) -> Callable:
    """Returns one function for all operations of one kind, so that their moments are computed once."""
    return kind(**dict(config))


@rule(operations="Take")
def look_up(call, inputs):
    """Reads rows of a table at random places, or at those that were given."""
    table = inputs[0].values
    if table is None or call.layer.axis not in (0, None) or len(inputs) < 2:
        raise UnpredictableError("it reads elements at places that depend on a tensor")
    rows = table()
    shape = call.outputs[0].shape
    return LayerPropagation(looked_up(rows, inputs[1], shape, inputs[0].sources), lambda gradient: [])


@rule("Embedding")
def embedding(call, inputs):
    """Reads rows of a table."""
    table = call.layer.embeddings
    found = looked_up(host_values(table), inputs[0], call.outputs[0].shape, frozenset({id(table)}))
    return LayerPropagation(found, lambda gradient: [])


def looked_up(rows: np.ndarray, places: Signal, shape: Sequence, sources: frozenset) -> Signal:
    """Returns the signal of rows that are read from a table; where the places are not given, any two may be one."""
    used = rows
    same = other = 1.0 / len(rows)
    if places.note == "data" and places.values is not None:
        index = np.asarray(places.values())
        used = rows[np.clip(index.ravel(), 0, len(rows) - 1)]
        same, other = _coinciding(index)
    if not np.isfinite(used).all():
        raise UnpredictableError("its table holds NaN or infinity")
    second, mean = float((used**2).mean()), float(used.mean())
    axes = len(shape) - 2
    size = tuple(shape[1:-1])

    def lags(share: float, zero: float) -> Autocorrelation:
        return Autocorrelation.white(zero, share * second + (1 - share) * mean**2, axes)

    return Signal(mean, second, size, lags(same, second), lags(other, other * second + (1 - other) * mean**2),
                  sources=sources)  # fmt: skip


def _coinciding(index: np.ndarray) -> tuple[float, float]:
    """Returns how often two places of one example, and of two examples, hold the same integer."""
    flat = index.reshape(len(index), -1)
    n, m = flat.shape

    def pairs(values: np.ndarray) -> float:
        return float((np.unique(values, return_counts=True)[1].astype("float64") ** 2).sum())

    own = sum(pairs(row) for row in flat)
    within = (own - n * m) / (n * m * (m - 1)) if m > 1 else 0.0
    between = (pairs(flat) - own) / (n * (n - 1) * m**2) if n > 1 else 0.0
    return within, between
