"""Axes that are split and merged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._layout import Shape, axes_of, usual_axes
from keras_initkit.prediction.algebra._signals import Signal, UnpredictableError


def reshape(x: Signal, before: Shape, after: Shape) -> Signal:
    """Splits and merges axes, where both shapes agree on the axis of examples."""
    x = x.with_margin()
    if None in before[1:] or None in after[1:] or math.prod(before[1:]) != math.prod(after[1:]):  # type: ignore
        raise UnpredictableError("it joins examples with positions, or its sizes are not known")
    axes = axes_of(x, len(before))
    new_axes: list[tuple[int, ...] | None] = []
    steps: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}
    shared: float | None = x.across_units
    unknown = False
    for old, new in _groups(list(before[1:]), list(after[1:])):
        roles = [axes[place] for place in old if before[1 + place] != 1]
        sizes = [before[1 + place] for place in old if before[1 + place] != 1]
        if all(role is None for role in roles):
            new_axes += [None] * len(new)
        elif all(role is not None for role in roles):
            key: tuple[int, ...] = tuple(role for role in roles if role is not None)
            steps[key] = sizes, [after[1 + place] for place in new if after[1 + place] != 1]  # type: ignore
            new_axes += [key if after[1 + place] != 1 else None for place in new]
        elif len([place for place in new if after[1 + place] != 1]) == 1:  # positions become units
            new_axes += [None] * len(new)
            shared = _shared(x, [r for r in roles if r is not None],
                             [n for n, r in zip(sizes, roles, strict=True) if r is not None], sizes)  # fmt: skip
        else:
            unknown = True
            new_axes += [(-1,)] * (len(new) - 1) + [None]
    if unknown:
        usual = usual_axes(len(after))
        size = tuple(n for n, axis in zip(after[1:], usual, strict=True) if axis is not None)
        return replace(x, size=size, axes=None, within_example=None, between_examples=None, profile=(),
            levels=None,
                       argument=None, function=None, across_units=shared)  # fmt: skip

    def lags(values: Autocorrelation | None) -> Autocorrelation | None:
        keys = list(dict.fromkeys(key for key in new_axes if key is not None))
        if values is None or not keys:
            return None if values is None else Autocorrelation.white(values.zero, values.zero, 0)
        total = sum(len(steps[key][1]) for key in keys)
        if (values.flat and all(len(key) == 1 for key in keys)) or values.constant():
            kept = [axis for key in keys for axis in key]
            far = float(values.within(kept).far.flat[0])
            return Autocorrelation.white(values.zero, far, total)
        if all(len(steps[key][0]) == len(steps[key][1]) == 1 for key in keys):
            kept = [key[0] for key in keys]
            return values.within(kept).transposed(np.argsort(np.argsort(kept)))
        if len(keys) == 1:
            kept = list(keys[0])
            moved = values.within(kept).transposed(np.argsort(np.argsort(kept)))
            return moved.reshaped(*steps[keys[0]])
        return None

    count = iter(range(len(after)))
    named = tuple(None if key is None else next(count) for key in new_axes)
    size = tuple(n for n, axis in zip(after[1:], named, strict=True) if axis is not None)
    return replace(
        x,
        size=size,
        axes=None if named == usual_axes(len(after)) else named,
        within_example=lags(x.within_example),
        between_examples=lags(x.between_examples),
        across_units=shared,
        profile=x.profile if size == x.size and named == axes else (),
        levels=x.levels if size == x.size and len(size) == 1 else None,
        argument=None,
        function=None,
    )


def _shared(x: Signal, roles: list[int], positions: list, sizes: list) -> float | None:
    """Returns the mean product of two units where positions have become units as well."""
    if x.within_example is None:
        return x.across_units
    count, places = math.prod(sizes), math.prod(positions)
    units = count // places
    total = x.within_example.within(roles).mean(positions) * places**2 * units - x.second_moment * count
    total += x.product_of_units * (count**2 - places**2 * units)
    return total / (count * (count - 1)) if count > 1 else None


def _groups(before: list, after: list) -> list[tuple[list[int], list[int]]]:
    """Pairs axes of both shapes into the smallest groups of equal products; axes of size 1 go with what they follow."""
    groups, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        old: list[int] = []
        new: list[int] = []
        one = two = 1
        while not (old or new) or one != two:
            if (one <= two and i < len(before)) or j >= len(after):
                one *= before[i]
                old.append(i)
                i += 1
            else:
                two *= after[j]
                new.append(j)
                j += 1
        while i < len(before) and before[i] == 1:
            old.append(i)
            i += 1
        while j < len(after) and after[j] == 1:
            new.append(j)
            j += 1
        groups.append((old, new))
    return groups
