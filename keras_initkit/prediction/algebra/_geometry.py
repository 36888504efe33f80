"""How often a convolution's or pooling's windows read each input position, on average over all positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Sizes = tuple[Any, ...]  # integers; `None` for a size that is not known
Profile = tuple[np.ndarray | None, ...]


@dataclass(frozen=True)
class WindowOffsets:
    """Counts of pairs: an output position, and an offset in its window that lies inside the input.

    Args:
        size: Tuple. The output's sizes.
        per_output: Float. Mean number of such pairs for each output position.
        per_input: Float. Mean number of such pairs for each input position.
        outputs: Float. Number of output positions, where known.
        field: Integer. Number of offsets in a window.
        profile: As of a `Signal`, of the output; empty where it is the input's.
        apart: Float. Correlation of two positions far apart, relative to an endless map: near a border a window may
            lack an offset that the other one has.
        coverage: Along each axis, the fraction of windows for which an offset lies inside the input.
        reads: Along each axis, array of shape (outputs, inputs): how many offsets of an output's window are that input;
            `None` where sizes are not known.
        meeting: Float. Of what gradients at two outputs have in common, the part that inputs still have, relative to
            their mean square: two inputs get it through the same offset, from two outputs as far apart as they are.
        overlaps: Along each axis, the same for positions that are 0, 1, 2, ... apart; empty where it is 1.
    """

    size: Sizes
    per_output: float
    per_input: float
    outputs: float | None
    field: int = 1
    profile: Profile = ()
    apart: float = 1.0
    overlaps: tuple[np.ndarray | None, ...] = ()
    coverage: tuple[np.ndarray, ...] = ()
    reads: tuple[np.ndarray | None, ...] = ()
    meeting: float = 1.0

    def returned(self, profile: Profile) -> tuple[float, Profile]:
        """Returns what reaches an input on average of gradients that have a profile themselves, and its profile.

        The middle is read more often than a border, so gradients gather there from layer to layer.
        """
        if not self.reads or None in self.size:
            return self.per_input, profile
        found, factor = [], 1.0
        for axis, reads in enumerate(self.reads):
            given = profile[axis] if len(profile) == len(self.reads) else None
            assert reads is not None
            given = np.ones(len(reads)) if given is None or len(given) != len(reads) else given
            reached = given @ reads
            factor *= float(reached.mean())
            found.append(reached / reached.mean() if reached.mean() > 0 else None)
        return factor, tuple(found)

    @classmethod
    def pointwise(cls, size: Sizes) -> WindowOffsets:
        """Returns the single offset 0 of a layer that acts on each position by itself."""
        return cls(size, 1.0, 1.0, None if None in size else math.prod(size))  # type: ignore[arg-type]


def window_offsets(
    size: Sizes,
    field: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: str,
    margin: Sequence[tuple[int, int]] = (),
    profile: Profile = (),
) -> WindowOffsets:
    """Counts the offsets of a convolution or pooling, each weighted by the input's profile where it reads.

    The window of output o reads inputs $o s + t d - p$ for $t < k$, with p zeros before the input.

    >>> offsets = window_offsets((4,), (3,), (1,), (1,), "same")
    >>> offsets.per_output, offsets.per_input, offsets.profile[0].tolist()
    (2.5, 2.5, [0.8, 1.2, 1.2, 0.8])
    """
    outer: list[int | None] = []
    profiles: list[np.ndarray | None] = []
    overlaps: list[np.ndarray | None] = []
    coverage = []
    reads: list[np.ndarray | None] = []
    pairs = alone = positions = 1.0
    per_output = per_input = apart = 1.0
    for axis, (n, k, s, d) in enumerate(zip(size, field, strides, dilation, strict=True)):
        if n is None:
            outer.append(None)
            profiles.append(None)
            overlaps.append(None)
            coverage.append(np.ones(k))
            reads.append(None)
            per_output, per_input = per_output * k, per_input * k / s
            continue
        inside, starts = window_counts(n, k, s, d, padding, margin[axis] if margin else (0, 0))
        given = profile[axis] if profile else None
        given = np.ones(n) if given is None else given
        sums = np.array([sum(given[start + t * d] for t in range(k) if 0 <= start + t * d < n) for start in starts])
        shares = [sum(0 <= start + t * d < n for start in starts) / len(starts) for t in range(k)]
        apart *= sum(share**2 for share in shares) / sum(shares)
        held = np.array([[0 <= start + t * d < n for t in range(k)] for start in starts], float)
        coverage.append(held.mean(axis=0))
        places = np.asarray(starts)[:, None] + d * np.arange(k)
        read = (places[..., None] == np.arange(n)).astype("float64")
        reads.append(read.sum(axis=1))
        by_offset = read.sum(axis=0)
        positions, alone = positions * n, alone * by_offset.sum()
        pairs *= float((by_offset.sum(axis=1) ** 2).sum())
        together = held @ held.T
        overlaps.append(
            np.array([together.diagonal(lag).mean() for lag in range(len(starts))]) / held.sum(axis=1).mean()
        )
        outer.append(len(starts))
        profiles.append(sums / sums.mean())
        per_output, per_input = per_output * float(sums.mean()), per_input * sum(inside) / n
    total = None if None in outer else math.prod(outer)  # type: ignore[arg-type]
    meeting = (pairs - alone) / (alone * (positions - 1)) if positions > 1 and alone > 0 else 1.0
    whole = tuple(outer), per_output, per_input, total, math.prod(field)
    return WindowOffsets(*whole, tuple(profiles), apart, tuple(overlaps), tuple(coverage), tuple(reads), meeting)


def window_counts(
    n: int, k: int, s: int, d: int, padding: str, margin: tuple[int, int] = (0, 0)
) -> tuple[list[int], range]:
    """Return, along one axis, the number of offsets inside the input for each window, and where the windows start."""
    reach = (k - 1) * d + 1
    before, after = margin
    if padding == "causal":
        before += reach - 1
    elif padding == "same":
        whole = n + before + after
        missing = max((math.ceil(whole / s) - 1) * s + reach - whole, 0)
        before, after = before + missing // 2, after + missing - missing // 2
    starts = range(-before, n + after - reach + 1, s)
    return [sum(0 <= start + t * d < n for t in range(k)) for start in starts], starts


def transposed_offsets(
    size: Sizes, outer: Sizes, field: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> WindowOffsets:
    """Counts the offsets of a transposed convolution: input i adds to the existing outputs among $i s + t d - p$."""
    per_output = per_input = 1.0
    for n, m, k, s, d in zip(size, outer, field, strides, dilation, strict=True):
        if n is None or m is None:
            per_output, per_input = per_output * k / s, per_input * k
            continue
        reach = (k - 1) * d + 1
        cut = max((n - 1) * s + reach - m, 0) // 2
        pairs = sum(0 <= i * s + t * d - cut < m for i in range(n) for t in range(k))
        per_output, per_input = per_output * pairs / m, per_input * pairs / n
    total = None if None in outer else math.prod(outer)  # type: ignore[arg-type]
    return WindowOffsets(tuple(outer), per_output, per_input, total, math.prod(field))


def reweight_profile(profile: Profile, function: Callable[[np.ndarray], np.ndarray]) -> Profile:
    """Applies `function` to the mean square at each position, and scales the profile to mean 1 again."""

    def along(values: np.ndarray | None) -> np.ndarray | None:
        if values is None or np.ptp(values) == 0:
            return None
        changed = function(values)
        return changed / changed.mean() if changed.mean() > 0 else None

    return tuple(along(values) for values in profile)
