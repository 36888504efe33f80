"""Where the axes of a tensor go: transposed, broadcast, in a `Signal`'s terms of positions and units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._input_moments import autocorrelation, products
from keras_initkit.prediction.algebra._signals import Signal, UnpredictableError

Axes = tuple[int | None, ...]


Shape = Sequence[int | None]


def axes_of(x: Signal, rank: int) -> Axes:
    """Returns, for each axis after the first of a tensor of this rank, its axis of positions; `None` for units."""
    return x.axes if x.axes is not None else (*range(max(rank - 2, 0)), None)[: rank - 1]


def usual_axes(rank: int) -> Axes:
    """Returns the axes of a tensor whose last axis holds the units."""
    return (*range(max(rank - 2, 0)), None)[: rank - 1]


def arrange(x: Signal, axes: Sequence[int | None], sizes: Sequence[int | None]) -> Signal:
    """Numbers a signal's axes of positions anew, in the order in which `axes` names them."""
    order = [axis for axis in axes if axis is not None]
    places = {axis: place for place, axis in enumerate(order)}
    lags = x.map_autocorrelations(lambda v: v.within(order).transposed(np.argsort(np.argsort(order))))
    size = tuple(n for axis, n in zip(axes, sizes, strict=True) if axis is not None)
    profile = tuple(x.profile[axis] for axis in order) if x.profile else ()
    named = tuple(None if axis is None else places[axis] for axis in axes)
    usual = named == usual_axes(len(named) + 1)
    same = x.levels is not None and size == x.size and len(size) == 1
    return replace(x, size=size, axes=None if usual else named, profile=profile,
                   levels=x.levels if same else None, **lags, **_no_more(x))  # fmt: skip


def _no_more(x: Signal) -> dict[str, Any]:
    return {"margin": ()} if x.margin else {}


def transpose(x: Signal, before: Shape, order: Sequence[int]) -> Signal:
    """Reorders a tensor's axes; `order` counts the first one, which has to stay."""
    if order[0] != 0:
        raise UnpredictableError("it moves the axis of examples")
    x = x.with_margin()
    axes = axes_of(x, len(before))
    changed = arrange(x, [axes[place - 1] for place in order[1:]], [before[place] for place in order[1:]])
    return changed if x.argument is None else replace(changed, argument=None, function=None)


def standardize(x: Signal, shape: Shape) -> Signal:
    """Has the last axis hold the units and the others positions, as the rules of layers take them."""
    if x.values is not None:
        return from_values(x, shape, usual_axes(len(shape)))
    if x.axes is None:
        return x
    axes = list(x.axes)
    for place, axis in enumerate(axes[:-1]):
        if axis is None:
            x, axes = _with_unit_axis(x, shape, axes, place)
    if axes and axes[-1] is not None:
        last = axes[-1]
        shared = None
        if x.within_example is not None:
            shared = x.within_example.within([last]).off_zero([shape[-1]])
        x, axes[-1] = replace(x, across_units=shared), None
    return arrange(x, axes, shape[1:])


def _with_unit_axis(x: Signal, shape: Shape, axes: list, place: int) -> tuple[Signal, list]:
    """Counts an axis of units among the positions: two of them share the mean alone."""
    known = [axis for axis in axes if axis is not None]
    sizes = [shape[1 + axes.index(axis)] for axis in known]
    x = arrange(x, known, sizes) if known != list(range(len(known))) else x
    axes = [None if axis is None else known.index(axis) for axis in axes]

    def lags(values: Autocorrelation | None) -> Autocorrelation | None:
        full = None if values is None else values.full(sizes)
        shared = x.product_of_units
        if values is not None and shape[1 + place] == 1:
            return Autocorrelation(values.near[..., None], values.far[..., None])
        if full is None:
            return None
        return Autocorrelation(full.near[..., None], np.full((1,) * (len(known) + 1), shared))

    x = replace(
        x,
        size=(*x.size, shape[1 + place]),
        within_example=lags(x.within_example),
        between_examples=lags(x.between_examples),
        profile=(*x.profile, None) if x.profile else (),
    )
    axes[place] = len(known)
    return x, axes


def from_values(x: Signal, shape: Shape, axes: Sequence[int | None]) -> Signal:
    """Measures a tensor of known values, broadcast to a shape whose axes of positions and units are given."""
    assert x.values is not None
    given = np.asarray(x.values(), "float64")
    given = given.reshape((1,) * (len(shape) - given.ndim) + given.shape)
    sizes = [n if n is not None else m for n, m in zip(shape[1:], given.shape[1:], strict=True)]
    size = tuple(n for n, axis in zip(sizes, axes, strict=True) if axis is not None)
    places = [place for place, axis in enumerate(axes) if axis is not None]
    units = [place for place, axis in enumerate(axes) if axis is None]
    if not np.isfinite(given).all():
        raise UnpredictableError("it holds NaN or infinity")
    mean, second = float(given.mean()), float((given**2).mean())
    arranged = given.transpose([0, *(1 + place for place in places), *(1 + place for place in units)])
    arranged = arranged.reshape(*arranged.shape[: 1 + len(places)], -1)
    count, squares = arranged.shape[-1], (arranged**2).mean()
    wide = math.prod(sizes[place] for place in units)
    pairs = float(((arranged.sum(axis=-1)) ** 2).mean() - count * squares)
    across = second if count == 1 else (pairs / (count * (count - 1)) if count == wide else None)
    arranged = np.broadcast_to(arranged, (len(arranged), *size, count))
    if arranged.size > 2**24:
        raise UnpredictableError("it holds too many numbers")
    if all(given.shape[1 + place] == 1 for place in places):
        own = Autocorrelation.white(second, second, len(places))
        shared = float((arranged.mean(axis=0) ** 2).mean())
        other = Autocorrelation.white(shared, shared, len(places))
    else:
        own = autocorrelation(np.mean([products(each) for each in arranged], axis=0), size)
        other = autocorrelation(products(arranged.mean(axis=0)), size)
    by_unit = (arranged**2).mean(axis=tuple(range(arranged.ndim - 1)))
    return Signal(
        mean,
        second,
        size,
        own,
        other,
        identically_distributed=bool(np.ptp(by_unit) <= 1e-6 * abs(by_unit).max()),
        sources=x.sources,
        axes=tuple(axes),
        across_units=across if wide > 1 else None,
    )


def broadcast(x: Signal, before: Shape, shape: Shape, axes: Sequence[int | None]) -> Signal:
    """Repeats a signal along axes of size 1, to a shape whose axes of positions and units are given."""
    if x.values is not None:
        return from_values(x, shape, axes)
    if len(before) != len(shape):
        raise UnpredictableError("its inputs have different numbers of axes")
    x = x.with_margin()
    own = axes_of(x, len(before))
    if tuple(before[1:]) == tuple(shape[1:]) and own == tuple(axes):
        return x
    chosen: list[int | None] = []
    grown, misfits = [], False
    for mine, theirs, n, m in zip(own, axes, before[1:], shape[1:], strict=True):
        single = n == 1 and m != 1
        chosen.append(mine if theirs is not None and not single else None)
        misfits |= theirs is not None and mine is None and not single and m != 1
        grown.append(theirs is not None and (single or mine is None))
    kept = [axis for axis in chosen if axis is not None]
    kept_sizes = [n for axis, n in zip(chosen, before[1:], strict=True) if axis is not None]
    size: tuple[Any, ...] = tuple(m for m, theirs in zip(shape[1:], axes, strict=True) if theirs is not None)

    def lags(values: Autocorrelation | None) -> Autocorrelation | None:
        if values is None or misfits:
            return None
        moved = values.within(kept).transposed(np.argsort(np.argsort(kept)))
        new = [place for place, (theirs, is_new) in enumerate(
            [(t, g) for t, g in zip(axes, grown, strict=True) if t is not None]) if is_new]  # fmt: skip
        if not new:
            return moved
        if not kept or moved.constant():
            return Autocorrelation.white(moved.zero, moved.zero, len(size))
        full = moved.full(kept_sizes)
        if full is None or any(size[place] is None or size[place] > 64 for place in new):
            return None
        near, far = full.near, full.far
        for place in new:
            near = np.repeat(np.expand_dims(near, place), 2 * size[place] - 1, axis=place)
            far = np.expand_dims(far, place)
        return Autocorrelation(near, far)

    unit_places = [place for place, theirs in enumerate(axes) if theirs is None and shape[1 + place] != 1]
    repeated = [place for place in unit_places if before[1 + place] == 1]
    across = x.second_moment if unit_places and repeated == unit_places else x.across_units
    return replace(
        x,
        size=size,
        within_example=lags(x.within_example),
        between_examples=lags(x.between_examples),
        axes=tuple(axes),
        across_units=across,
        profile=(),
        levels=x.levels if size == x.size else None,
        argument=None,
        function=None,
    )


def joint_axes(signals: Sequence[Signal], shapes: Sequence[Shape], shape: Shape) -> Axes:
    """Returns which axes of a result are positions: those that are so in an input, unless units in an earlier one."""
    found: list[bool | None] = [None] * (len(shape) - 1)
    for x, own in zip(signals, shapes, strict=True):
        if x.values is not None or len(own) != len(shape):
            continue
        for place, axis in enumerate(axes_of(x, len(own))):
            if own[1 + place] != 1 and found[place] is None:
                found[place] = axis is not None
    if all(x.values is not None for x in signals):
        return usual_axes(len(shape))
    count = iter(range(len(found)))
    return tuple(next(count) if each else None for each in found)
