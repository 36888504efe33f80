"""A heat map: a row for each layer, a column for each measured step, and marks where there is no number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from keras_initkit.plots._axis_names import LINE, name_rows
from keras_initkit.plots._picture import GROWN, SHRUNK, SMALL, write_inside

COLUMNS = 400
# Cells without a place on the scale continue it, and differ by texture, which needs no color vision.
_MARKS: dict[str, dict[str, Any]] = {
    "not finite": {"facecolor": GROWN, "edgecolor": "white", "hatch": "xxxx"},
    "zero": {"facecolor": SHRUNK, "edgecolor": "white", "hatch": "////"},
    "not measured": {"facecolor": "#D9D9D9", "edgecolor": "white", "hatch": "...."},
}
NOT_JUDGED = "gray: not judged"
_GRAY = LinearSegmentedColormap.from_list("gray", ["#707070", "#F4F4F4", "#707070"])
Cells = Sequence[Sequence[float | None]]


def map_height(layers: Sequence[str]) -> float:
    """Returns the height in inches of a map of these layers."""
    return min(max(1.6, 1.05 * LINE * len(layers)), 7.5)


def name_layers(panel: Axes, layers: Sequence[str]) -> None:
    """Names rows, first on top: all if they fit, the first layers of blocks or every n-th if not."""
    name_rows(panel, layers, map_height(layers))
    panel.set_ylim(max(len(layers), 1) - 0.5, -0.5)


def explain_marks(figure: Figure, marked: set[str]) -> None:
    """Adds a legend of the marks that a map has."""
    styles = {**_MARKS, NOT_JUDGED: {"facecolor": "#B0B0B0"}}
    if marked:
        handles = [Patch(label=name, **style) for name, style in styles.items() if name in marked]
        figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=SMALL)


def draw_map(
    panel: Axes,
    cells: np.ma.MaskedArray,
    steps: Sequence[int],
    colors: Colormap | str,
    limits: tuple[float, float],
    gray: np.ma.MaskedArray | None = None,
) -> tuple[AxesImage | None, set[str]]:
    """Draws one heat map, where it has nothing that of `gray`; returns its image, and which marks it has."""
    panel.set_xlabel("step", fontsize=SMALL)
    if cells.count() == 0 and (gray is None or gray.count() == 0):
        panel.set_xticks([])
        write_inside(panel, "not measured")
        return None, set()
    values, states, first = _columns(cells, np.asarray(steps))
    shown = np.ma.masked_where(states != "", values)
    style: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "vmin": limits[0], "vmax": limits[1]}
    image = panel.imshow(shown, cmap=colors, **style)
    marked = {str(name) for name in np.unique(states)}
    if gray is not None and gray.count():
        others, known, _ = _columns(gray, np.asarray(steps))
        instead = (known == "") & (states == "not measured")
        panel.imshow(np.ma.masked_where(~instead, others), cmap=_GRAY, **style)
        states = np.where(instead, "", states)
        marked = {str(name) for name in np.unique(states)} | {NOT_JUDGED}
    for name, style in _MARKS.items():
        boxes = [_box(row, start, end) for row, start, end in _runs(states == name)]
        if boxes:  # as one path: a hatch for each cell takes minutes
            panel.add_artist(PathPatch(Path.make_compound_path(*boxes), linewidth=0, zorder=2, **style))
    columns = np.unique(np.linspace(0, len(first) - 1, 5).round().astype(int))
    panel.set_xticks(columns, [f"{first[i]:,}" for i in columns])
    panel.tick_params(labelsize=SMALL, length=2)
    return image, marked - {""}


def as_array(cells: Cells, layers: Sequence[str], steps: Sequence[int]) -> np.ma.MaskedArray:
    """Returns rows of layers; what was not measured is masked, and NaN is not."""
    objects = np.full((len(layers), len(steps)), None, dtype=object)
    for row, values in zip(objects, cells, strict=True):
        row[:] = values
    return np.ma.masked_array(objects.astype(float), objects == np.array(None))


def _columns(cells: np.ma.MaskedArray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what is drawn: means of several steps, each cell's mark, and the first step of each column."""
    values, there = cells.data, ~np.ma.getmaskarray(cells)
    finite = there & np.isfinite(values)
    starts = np.unique(np.linspace(0, len(steps), min(len(steps), COLUMNS), endpoint=False).astype(int))
    number = np.add.reduceat(finite, starts, axis=1, dtype=int)
    means = np.add.reduceat(np.where(finite, values, 0.0), starts, axis=1) / np.maximum(number, 1)
    states = np.where(number, "", "not measured").astype("<U12")
    states[np.logical_or.reduceat(there & (values == -np.inf), starts, axis=1)] = "zero"
    states[np.logical_or.reduceat(there & (np.isnan(values) | (values == np.inf)), starts, axis=1)] = "not finite"
    return means, states, steps[starts]


def _runs(marked: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yields neighboring cells of a row as one: (row, first column, column after the last)."""
    edges = np.diff(np.pad(marked.astype(int), ((0, 0), (1, 1))), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    yield from ((int(row), int(start), int(end)) for (row, start), (_, end) in zip(starts, ends, strict=True))


def _box(row: int, start: int, end: int) -> Path:
    left, right, top, bottom = start - 0.5, end - 0.5, row - 0.5, row + 0.5
    return Path([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], closed=True)
