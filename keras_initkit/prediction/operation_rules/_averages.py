"""Rules for means and sums along axes, and for the Fourier transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._layout import axes_of, usual_axes
from keras_initkit.prediction.algebra._notes import Centered, Squared, Statistic
from keras_initkit.prediction.algebra._signals import (
    Gradient,
    LayerPropagation,
    Signal,
    UnpredictableError,
)
from keras_initkit.prediction.operation_rules._elementwise import needed
from keras_initkit.prediction.operation_rules._operands import nothing
from keras_initkit.prediction.operation_rules._rule_table import rule
from keras_initkit.structure._graph import Call


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
        law=None,
        argument=None,
        function=None,
        profile=(),
        spread=None,
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
