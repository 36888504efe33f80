"""One small panel with the histogram of a layer's activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes

Histogram = tuple[Sequence[int], Sequence[float]]


def shared_range(histograms: Iterable[Histogram]) -> tuple[float, float]:
    """One horizontal range for all the panels of a row, so that a collapse is seen as one."""
    # Of a layer that overflowed altogether there are no counts, and the edges mean nothing.
    drawn = [edges for counts, edges in histograms if np.any(counts)] or [(0.0, 1.0)]
    return min(edges[0] for edges in drawn), max(edges[-1] for edges in drawn)


def draw_histogram(panel: Axes, histogram: Histogram, limits: tuple[float, float]) -> None:
    """Bars, the range's ends and the standard deviation; a bar that leaves the panel is cut at its upper edge."""
    counts, edges = histogram
    panel.stairs(counts, edges, fill=True, color="tab:blue")
    panel.set_xlim(*limits)
    texts: list[str] = []
    for form in (".2g", ".4g", ".8g"):  # as few digits as tell the ends apart
        texts = [f"{limit:{form}}" for limit in limits]
        if texts[0] != texts[1]:
            break
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
    """Standard deviation of a histogram's values, to about a bin's width."""
    centres, weights = np.convolve(edges, [0.5, 0.5], "valid"), np.asarray(counts) / max(np.sum(counts), 1)
    return float(np.sqrt(weights @ (centres - weights @ centres) ** 2))
