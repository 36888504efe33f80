"""Parts that several figures share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes

Histogram = tuple[Sequence[int], Sequence[float]]
TINY = 1e-30  # what a histogram of zeros reaches to on either side


def shared_range(histograms: Iterable[Histogram]) -> tuple[float, float]:
    """Returns one horizontal range for all panels of a row, in which a collapse shows."""
    # A layer that overflowed altogether has no counts, and its edges mean nothing.
    drawn = [edges for counts, edges in histograms if np.any(counts)] or [(0.0, 1.0)]
    return min(edges[0] for edges in drawn), max(edges[-1] for edges in drawn)


def draw_histogram(panel: Axes, histogram: Histogram, limits: tuple[float, float]) -> None:
    """Draws bars, the range's ends and the standard deviation; the panel's upper edge cuts a bar that is too high."""
    counts, edges = histogram
    panel.stairs(counts, edges, fill=True, color="tab:blue")
    panel.set_xlim(*limits)
    texts: list[str] = []
    for form in (".2g", ".4g", ".8g"):  # as few digits as tell the ends apart
        texts = [f"{limit:{form}}" for limit in limits]
        if texts[0] != texts[1]:
            break
    middle, half = limits[0] / 2 + limits[1] / 2, limits[1] / 2 - limits[0] / 2
    if half <= TINY or len("".join(texts)) > 17:  # constant, or ends whose digits would run into each other
        panel.set_xticks([middle], [f"{middle:.2g} ± {half:.1g}"], fontsize=7)
    else:
        panel.set_xticks(limits, texts, fontsize=7)
        left, right = panel.get_xticklabels()
        left.set_horizontalalignment("left")
        right.set_horizontalalignment("right")
    *_, second, largest = sorted(counts)
    panel.set_ylim(0, 1.2 * (second or largest or 1))  # the bin of ReLU's zeros would hide the rest
    panel.set_yticks([])
    text = f"sd {_deviation(counts, edges):.1e}" if np.any(counts) else "not finite"
    panel.text(0.97, 0.93, text, ha="right", va="top", fontsize=7, transform=panel.transAxes)


def _deviation(counts: Sequence[int], edges: Sequence[float]) -> float:
    """Returns the standard deviation of a histogram's values, to about a bin's width."""
    centers, weights = np.convolve(edges, [0.5, 0.5], "valid"), np.asarray(counts) / max(np.sum(counts), 1)
    return float(np.sqrt(weights @ (centers - weights @ centers) ** 2))


def mark_empty(panel: Axes) -> None:
    """Says that a logarithmic axis has nothing to show."""
    panel.set_yticks([])
    panel.set_yticks([], minor=True)
    panel.text(0.5, 0.5, "nothing above 0 and finite", ha="center", transform=panel.transAxes)


def crop_name(name: str, length: int) -> str:
    """Returns the end of a path, which tells layers apart better than its beginning."""
    return name if len(name) <= length else f"…{name[1 - length :]}"
