"""Rules for operations and layers that move elements, copy them or choose some."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_initkit.prediction.algebra._layout import arrange, axes_of, broadcast, transpose
from keras_initkit.prediction.algebra._levels import even
from keras_initkit.prediction.algebra._reshaping import reshape
from keras_initkit.prediction.algebra._signals import (
    Gradient,
    LayerPropagation,
    Signal,
    UnpredictableError,
    add_gradients,
)
from keras_initkit.prediction.operation_rules._elementwise import needed
from keras_initkit.prediction.operation_rules._rule_table import rule

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
    kept: list[int | None] = []
    sizes: list[int | None] = []
    cuts = []
    kept_units = kept_positions = 1.0
    steps = {}
    read: np.ndarray | None = None  # which positions, of a sequence
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
                read = np.isin(np.arange(n), places)
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
        found = gradient.scaled(share, sources=tagged, common=common)
        if kept_positions == 1:
            return [found]
        levels = None
        if read is not None and len(x.size) == 1:
            levels = np.zeros((1 if gradient.levels is None else len(gradient.levels), len(read)))
            fits = gradient.levels is not None and gradient.levels.shape[1] == read.sum()
            levels[:, read] = gradient.levels if fits else 1.0
        return [replace(found, levels=None if levels is None else even(levels))]

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
