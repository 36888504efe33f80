"""Which axes of a weight each axis of a tensor made of it holds, through transposes, reshapes, slices and the like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_initkit.structure._graph import Call, Tensor

# A digit of an element's place in the weight's memory: its number of values, and how many elements apart they are.
Digit = tuple[int, int]


@dataclass(frozen=True)
class View:
    """A weight, or a part of it, as an operation has arranged it.

    Args:
        variable: Keras variable.
        axes: Tuple with the digits of each axis, the slowest first; `()` for an axis that the weight does not have.
            `None` where the elements are no longer the weight's, as after `tanh(w)`.
        sizes: Tuple of integers. Size of each axis: less than its digits make after a slice.
        factor: Float. Root mean square of the constants that the elements were multiplied by.
    """

    variable: keras.Variable
    axes: tuple[tuple[Digit, ...], ...] | None
    sizes: tuple[int, ...]
    factor: float = 1.0

    @classmethod
    def from_variable(cls, variable: keras.Variable) -> View:
        """Returns the view of a weight as it is."""
        shape = tuple(variable.shape)
        strides = memory_strides(shape)
        axes = tuple(((size, stride),) if size > 1 else () for size, stride in zip(shape, strides, strict=True))
        return cls(variable, axes, shape)

    def picked(self, order: Iterable[int | None]) -> View:
        """Returns the view with these axes in this order; `None` is a new axis of size 1."""
        if self.axes is None:
            return self
        places = list(order)
        axes = tuple(() if axis is None else self.axes[axis] for axis in places)
        return replace(self, axes=axes, sizes=tuple(1 if axis is None else self.sizes[axis] for axis in places))

    def resized(self, axis: int, size: int) -> View:
        """Returns the view with an axis cut, or joined to something else, to another size."""
        return replace(self, sizes=tuple(size if place == axis else each for place, each in enumerate(self.sizes)))

    def reshaped(self, shape: Sequence[int | None]) -> View:
        """Returns the view in another shape; one without axes where the weight's elements are spread over it."""
        if self.axes is None:
            return self
        if any(math.prod(n for n, _ in digits) != size for digits, size in zip(self.axes, self.sizes, strict=True)):
            return replace(self, axes=None)
        known = math.prod(size for size in shape if size is not None)
        sizes = tuple(math.prod(self.sizes) // max(known, 1) if size is None else size for size in shape)
        digits = [digit for axis in self.axes for digit in axis]
        axes = []
        for size in sizes:
            axis: list[Digit] = []
            while (left := size // math.prod(n for n, _ in axis)) > 1:
                if not digits:
                    return replace(self, axes=None)
                number, stride = digits.pop(0)
                if left < number and number % left == 0:
                    digits.insert(0, (number // left, stride))
                    number, stride = left, stride * (number // left)
                if left % number:
                    return replace(self, axes=None)
                axis.append((number, stride))
            axes.append(tuple(axis))
        return replace(self, axes=tuple(axes), sizes=sizes)

    def split(self, axis: int, count: int) -> View:
        """Returns the view with an axis as two, the first of size `count`."""
        sizes = (*self.sizes[:axis], count, self.sizes[axis] // count, *self.sizes[axis + 1 :])
        return self.reshaped(sizes)


def memory_strides(shape: Sequence[int]) -> list[int]:
    """Returns how many elements apart the neighbors along each axis are."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def moved(call: Call, view: View) -> View | None:
    """Returns a view after an operation that only arranges, casts or slices it; `None` for any other operation."""
    operation, kind = call.layer, type(call.layer).__name__
    rank = len(view.sizes)
    shape = call.outputs[0].shape
    if kind in ("Cast", "ConvertToTensor", "StopGradient", "Copy", "View", "Identity", "Flip", "Roll", "Negative"):
        return view
    if view.axes is None:
        return view
    if kind == "Transpose":
        return view.picked(operation.axes or reversed(range(rank)))
    if kind == "Swapaxes":
        swapped = list(range(rank))
        one, other = operation.axis1, operation.axis2
        swapped[one], swapped[other] = swapped[other], swapped[one]
        return view.picked(swapped)
    if kind == "Moveaxis":
        order = np.moveaxis(np.empty(range(2, rank + 2)), operation.source, operation.destination).shape
        return view.picked(size - 2 for size in order)  # each axis is told by its size
    if kind in ("Reshape", "Ravel"):
        return view.reshaped(shape)
    if kind == "ExpandDims":
        added = {axis % len(shape) for axis in _tuple(operation.axis)}
        kept = iter(range(rank))
        return view.picked(None if axis in added else next(kept) for axis in range(len(shape)))
    if kind == "Squeeze":
        axes = operation.axis
        gone = [axis for axis in range(rank) if view.sizes[axis] == 1] if axes is None else _tuple(axes)
        gone = [axis % rank for axis in gone]
        return view.picked(axis for axis in range(rank) if axis not in gone)
    if kind in ("BroadcastTo", "Tile", "Repeat"):
        wide = view.picked([*[None] * (len(shape) - rank), *range(rank)])
        for axis, size in enumerate(shape):
            if size is not None and size != wide.sizes[axis]:
                wide = replace(wide, axes=None) if wide.axes is None or wide.axes[axis] else wide.resized(axis, size)
        return wide
    if kind in ("Slice", "Pad"):
        for axis, size in enumerate(shape):
            view = view.resized(axis, view.sizes[axis] if size is None else size)
        return view
    if kind == "Split":
        axis = operation.axis % rank
        size = shape[axis]
        return view.resized(axis, view.sizes[axis] // len(call.outputs) if size is None else size)
    if kind == "Unstack":
        return view.picked(axis for axis in range(rank) if axis != operation.axis % rank)
    if kind == "GetItem":
        return _taken(view, _key(call))
    return None


def looked_up(call: Call, view: View) -> tuple[int, Any] | None:
    """Returns the axis along which an operation takes elements by an array of indices, and the indices."""
    kind = type(call.layer).__name__
    arguments = [*call.args, *call.kwargs.values()]
    if kind == "Take":
        axis = getattr(call.layer, "axis", None)
        return (0 if axis is None else axis % max(len(view.sizes), 1)), arguments[1]
    if kind != "GetItem":
        return None
    axis = 0
    key = _key(call)
    for place, each in enumerate(key):
        if isinstance(each, Tensor) or (hasattr(each, "shape") and len(each.shape)) or isinstance(each, list):
            return axis, each
        if each is Ellipsis:
            axis = len(view.sizes) - sum(later is not None for later in key[place + 1 :])
        elif each is not None:
            axis += 1
    return None


def _key(call: Call) -> tuple[Any, ...]:
    key = [*call.args, *call.kwargs.values()][1]
    return key if isinstance(key, tuple) else (key,)


def _taken(view: View, key: tuple[Any, ...]) -> View | None:
    """Returns a view after indexing by numbers, slices and new axes; `None` for other indices."""
    rank = len(view.sizes)
    used = sum(each is not None and each is not Ellipsis for each in key)
    if Ellipsis not in key:
        key = (*key, Ellipsis)
    order: list[int | None] = []
    axis = 0
    for each in key:
        if each is None:
            order.append(None)
        elif each is Ellipsis:
            order.extend(range(axis, axis + rank - used))
            axis += rank - used
        elif isinstance(each, slice):
            bounds = (each.start, each.stop, each.step)
            if not all(bound is None or isinstance(bound, int | np.integer) for bound in bounds):
                return None
            view = view.resized(axis, len(range(*each.indices(view.sizes[axis]))))
            order.append(axis)
            axis += 1
        elif isinstance(each, int | np.integer):
            axis += 1
        else:
            return None
    return view.picked(order)


def _tuple(axes: Any) -> tuple[int, ...]:
    return tuple(axes) if isinstance(axes, tuple | list) else (axes,)
