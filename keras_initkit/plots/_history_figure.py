"""The figure of a training run: the variance of every layer at every measured step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from keras_initkit.plots._panels import crop_name

COLUMNS, NAMES = 400, 60
# Cells without a place on the logarithmic scale differ from it by texture, which needs no color vision.
_MARKS: dict[str, dict[str, Any]] = {
    "not finite": {"facecolor": "#D55E00", "edgecolor": "white", "hatch": "xxxx"},
    "zero": {"facecolor": "white", "edgecolor": "black", "hatch": "////"},
}
_ABSENT = "#D9D9D9"

Cells = Sequence[Sequence[float | None]]


def variance_over_training(
    layers: Sequence[str], steps: Sequence[int], forward: Cells, backward: Cells, caption: str = ""
) -> Figure:
    """Draws heat maps of activations and of gradients side by side: a row for each layer, first on top.

    A column is a measured step; above 400 of them a column shows several that follow one another, with
    the geometric mean of their variances, and marked if one of them is not finite or 0. The color is the
    logarithm of the variance, over two decades at least: noise shall not look like a trend.

    Args:
        layers: Sequence of strings. Names of the layers, input to output.
        steps: Sequence of integers. Numbers of the measured steps, ascending.
        forward, backward: Sequences of a sequence for each layer. Variances by step; `None` where there is none.
        caption: String. What was measured, for the title.
    """
    height = min(max(3.2, 1.9 + 0.17 * len(layers)), 12)
    figure = Figure(figsize=(13, height), layout="constrained")
    figure.suptitle(caption, wrap=True, parse_math=False)
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("forward: variance of activations", "backward: variance of gradients")
    marked: set[str] = set()
    for panel, cells, title in zip(panels, (forward, backward), titles, strict=True):
        panel.set_title(title, loc="left", fontsize=10)
        marked |= _draw(figure, panel, _as_array(cells, len(layers), len(steps)), steps)
    step = -(-len(layers) // NAMES) or 1
    ticks = range(0, len(layers), step)
    # Numbers that do not fit are left to the eye: the first and every n-th layer are named.
    panels[0].set_yticks(list(ticks), [crop_name(layers[i], 30) for i in ticks], fontsize=7, parse_math=False)
    panels[0].set_ylim(max(len(layers), 1) - 0.5, -0.5)
    styles = {**_MARKS, "not measured": {"facecolor": _ABSENT}}
    if marked:
        handles = [Patch(label=name, **style) for name, style in styles.items() if name in marked]
        figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    return figure


def _draw(figure: Figure, panel: Axes, cells: np.ma.MaskedArray, steps: Sequence[int]) -> set[str]:
    """Draws one heat map; returns which marks it has."""
    panel.set_xlabel("step", fontsize=9)
    if cells.count() == 0:
        panel.set_xticks([])
        panel.text(0.5, 0.5, "not measured", ha="center", va="center", transform=panel.transAxes)
        return set()
    values, states, first = _columns(cells, np.asarray(steps))
    panel.set_facecolor(_ABSENT)
    shown = np.ma.masked_where(states != "", values)
    low, high = _two_decades(shown)
    image = panel.imshow(shown, aspect="auto", interpolation="nearest", cmap="viridis", vmin=low, vmax=high)
    bar = figure.colorbar(image, ax=panel, pad=0.01, aspect=6 * figure.get_figheight())
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda power, _: f"$10^{{{power:g}}}$"))
    bar.ax.tick_params(labelsize=8)
    for name, style in _MARKS.items():
        boxes = [_box(row, start, end) for row, start, end in _runs(states == name)]
        if boxes:  # as one path: a hatch for each cell takes minutes
            panel.add_artist(PathPatch(Path.make_compound_path(*boxes), linewidth=0, zorder=2, **style))
    columns = np.unique(np.linspace(0, len(first) - 1, 9).round().astype(int))
    panel.set_xticks(columns, [f"{first[i]:,}" for i in columns], fontsize=8)
    return {str(name) for name in np.unique(states)} - {""}


def _as_array(cells: Cells, layers: int, steps: int) -> np.ma.MaskedArray:
    """Returns rows of layers; what was not measured is masked, and NaN is not."""
    objects = np.full((layers, steps), None, dtype=object)
    for row, values in zip(objects, cells, strict=True):
        row[:] = values
    return np.ma.masked_array(objects.astype(float), objects == np.array(None))


def _columns(cells: np.ma.MaskedArray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what is drawn: logarithms of the variances, each cell's mark, and the first step of each column."""
    values, there = cells.data, ~np.ma.getmaskarray(cells)
    finite = there & np.isfinite(values) & (values >= 0)
    positive = finite & (values > 0)
    starts = np.unique(np.linspace(0, len(steps), min(len(steps), COLUMNS), endpoint=False).astype(int))
    logarithms = np.log10(values, where=positive, out=np.zeros_like(values))
    number = np.add.reduceat(positive, starts, axis=1, dtype=int)
    means = np.add.reduceat(logarithms, starts, axis=1) / np.maximum(number, 1)
    states = np.where(number, "", "not measured").astype("<U12")
    states[np.logical_or.reduceat(finite & (values == 0), starts, axis=1)] = "zero"
    states[np.logical_or.reduceat(there & ~finite, starts, axis=1)] = "not finite"
    return means, states, steps[starts]


def _two_decades(logarithms: np.ma.MaskedArray) -> tuple[float, float]:
    """Returns the range of the colors."""
    if logarithms.count() == 0:
        return -1.0, 1.0
    low, high = float(logarithms.min()), float(logarithms.max())
    missing = max(0.0, 2 - (high - low)) / 2
    return low - missing, high + missing


def _runs(marked: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yields neighboring cells of a row as one: (row, first column, column after the last)."""
    edges = np.diff(np.pad(marked.astype(int), ((0, 0), (1, 1))), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    yield from ((int(row), int(start), int(end)) for (row, start), (_, end) in zip(starts, ends, strict=True))


def _box(row: int, start: int, end: int) -> Path:
    left, right, top, bottom = start - 0.5, end - 0.5, row - 0.5, row + 0.5
    return Path([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], closed=True)
