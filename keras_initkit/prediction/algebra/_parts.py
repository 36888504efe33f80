"""Signals whose units are of several kinds, as those of concatenated branches are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal

_ALIKE = 0.01  # relative difference up to which groups are taken as one: theory is not more exact at a finite width


def mixture(parts: Sequence[tuple[float, Signal]]) -> Signal:
    """Averages over groups of units, each weighted by its share; keeps the groups where they differ."""
    first = parts[0][1]
    alike = all(
        part.identically_distributed
        and math.isclose(part.mean, first.mean, rel_tol=_ALIKE, abs_tol=_ALIKE * math.sqrt(first.second_moment))
        and math.isclose(part.second_moment, first.second_moment, rel_tol=_ALIKE)
        for _, part in parts
    )
    gaussian = all(part.gaussian for _, part in parts)

    def lags(name: str) -> Autocorrelation | None:
        known = [getattr(part, name) for _, part in parts]
        if any(values is None for values in known):
            return None
        scaled = [v.map(lambda x, s=share: s * x) for v, (share, _) in zip(known, parts, strict=True)]
        return sum(scaled[1:], start=scaled[0])

    return replace(
        first,
        mean=sum(share * part.mean for share, part in parts),
        second_moment=sum(share * part.second_moment for share, part in parts),
        within_example=lags("within_example"),
        between_examples=lags("between_examples"),
        gaussian=gaussian,
        identically_distributed=alike,
        sources=frozenset().union(*(part.sources for _, part in parts)),
        law=first.law if alike else None,
        argument=None,
        function=None,
        profile=(),
        across_units=None,
        parts=() if alike and gaussian else leaves(parts),
        note=None,
    )


def leaves(parts: Sequence[tuple[float, Signal]]) -> tuple[tuple[float, Signal], ...]:
    """Returns the groups of groups, with their shares of the whole."""
    found: list[tuple[float, Signal]] = []
    for share, part in parts:
        inner = part.parts or ((1.0, part),)
        found += [(share * each, replace(leaf, parts=())) for each, leaf in inner]
    return tuple(found)


def of_parts(x: Signal, rule: Callable[[Signal], LayerPropagation]) -> LayerPropagation:
    """Applies a rule to each group of units by itself."""
    found = [rule(replace(part, parts=())) for _, part in x.parts]
    shares = [share for share, _ in x.parts]
    output = mixture([(share, each.output) for share, each in zip(shares, found, strict=True)])
    return LayerPropagation(
        replace(output, sources=x.sources, axes=x.axes),
        lambda gradient: [backward_of_parts(gradient, shares, [each.backward for each in found])],
    )


def backward_of_parts(
    gradient: Gradient, shares: Sequence[float], backs: Sequence[Callable[[Gradient], list[Gradient]]]
) -> Gradient:
    """Sends each group's gradient back by itself."""
    given = gradient.parts if len(gradient.parts) == len(shares) else (gradient.second_moment,) * len(shares)
    found = [
        back(replace(gradient, second_moment=second, parts=(), common=_scaled(gradient, second)))[0]
        for back, second in zip(backs, given, strict=True)
    ]
    common = [part.between_positions for part in found]
    return replace(
        found[0],
        second_moment=sum(share * part.second_moment for share, part in zip(shares, found, strict=True)),
        common=None if None in common else sum(s * c for s, c in zip(shares, common, strict=True) if c is not None),
        parts=tuple(part.second_moment for part in found),
    )


def _scaled(gradient: Gradient, second: float) -> float | None:
    if gradient.common is None or gradient.second_moment == 0:
        return gradient.common
    return gradient.common * second / gradient.second_moment
