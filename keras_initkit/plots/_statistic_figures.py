"""Figures of one statistic: by layer, and by layer and step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from keras_initkit.plots._axis_names import name_columns, name_line_ends
from keras_initkit.plots._heat_map import Cells, as_array, draw_map, explain_marks, map_height, name_layers
from keras_initkit.plots._picture import (
    COLORS,
    GROWN,
    NORMAL,
    SMALL,
    find_figure,
    new_picture,
    set_message,
    write_inside,
)

_FRACTIONS = LinearSegmentedColormap.from_list("fractions", ["white", GROWN])
_HEIGHT = 2.2
Limits = tuple[float, float]


def statistic_by_layer(
    name: str,
    layers: Sequence[str],
    lines: Mapping[str, Sequence[float | None]],
    *,
    limits: Limits | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draws one statistic by layer, on a logarithmic axis if it spans more than two decades.

    Args:
        name: String. Name of the statistic.
        layers: Sequence of strings. Names of the layers, input to output.
        lines: Mapping from each line's name to its values, one for each layer; `None` is a layer without one.
        limits: Pair of floats. The statistic's range where it has one, such as `(0, 1)` of a fraction.
        title: String. What the title begins with.
        ax: Matplotlib axes to draw into instead of a new figure.
    """
    figure, panel = _new_panel(ax, _HEIGHT + 1.9)
    values = {
        line: np.array([np.nan if value is None else value for value in each], float) for line, each in lines.items()
    }
    together = np.concatenate([*values.values(), []])
    panel.set_xlim(-0.5, max(len(layers), 1) - 0.5)
    if limits is not None:
        panel.set_ylim(limits[0] - 0.02, limits[1] + 0.02)
    elif _spans_decades(together):
        panel.set_yscale("log")
        panel.yaxis.set_minor_locator(NullLocator())
    ends: dict[str, tuple[float, str]] = {}
    for (line, each), color in zip(values.items(), COLORS, strict=False):
        there = np.flatnonzero(np.isfinite(each) & ((each > 0) | (panel.get_yscale() == "linear")))
        panel.plot(there, each[there], "o-", label=line, color=color, markersize=3.5, linewidth=1.3)
        if there.size:
            ends[line] = float(each[there[-1]]), color
    panel.set_ylabel(name, fontsize=SMALL)
    panel.tick_params(labelsize=SMALL, length=2)
    panel.grid(axis="y", alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    name_columns(panel, layers)
    if ends:
        name_line_ends(panel, ends if len(ends) > 1 else {}, _HEIGHT)
    else:
        write_inside(panel, "nothing to draw")
    largest = "; ".join(
        f"{line} " * (len(values) > 1) + f"largest, {each[place]:.3g}, in {layers[place]}"
        for line, each in values.items()
        if np.isfinite(each).any()
        for place in [int(np.nanargmax(np.where(np.isfinite(each), each, np.nan)))]
    )
    _write_message(figure, panel, ax, " ".join([f"{title}:" * bool(title), name, largest]).strip())
    return figure


def statistic_over_training(
    name: str,
    layers: Sequence[str],
    steps: Sequence[int],
    values: Cells,
    *,
    limits: Limits | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draws one statistic as a heat map: a row for each layer, a column for each measured step.

    Values that span more than two decades have logarithmic colors.

    Args:
        name: String. Name of the statistic.
        layers: Sequence of strings. Names of the layers, input to output.
        steps: Sequence of integers. Numbers of the measured steps, ascending.
        values: Sequence of a sequence for each layer. Values by step; `None` where there is none.
        limits: Pair of floats. The statistic's range where it has one, such as `(0, 1)` of a fraction.
        title: String. What the title begins with.
        ax: Matplotlib axes to draw into instead of a new figure.
    """
    figure, panel = _new_panel(ax, map_height(layers) + 1.0)
    cells = as_array(values, layers, steps)
    known = np.where(np.isfinite(cells.data) & ~np.ma.getmaskarray(cells), cells.data, np.nan)
    message = " ".join([f"{title}:" * bool(title), name]).strip()
    finite = known[np.isfinite(known)]
    logarithmic = limits is None and _spans_decades(finite)
    if finite.size:
        row, column = map(int, np.unravel_index(np.nanargmax(known), known.shape))
        message += f" largest, {known[row, column]:.3g}, in {layers[row]} at step {steps[column]:,}"
    if logarithmic:
        with np.errstate(divide="ignore", invalid="ignore"):
            cells = np.ma.masked_array(np.log10(cells.data), np.ma.getmaskarray(cells))
        finite = np.log10(finite[finite > 0])
    span = limits or ((float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0))
    image, marked = draw_map(panel, cells, steps, "cividis" if limits is None else _FRACTIONS, span)
    name_layers(panel, layers)
    if image is not None:
        bar = figure.colorbar(image, ax=panel, pad=0.01, fraction=0.05, aspect=8 * map_height(layers))
        bar.ax.tick_params(labelsize=SMALL, length=2)
        if logarithmic:
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda power, _: f"{10**power:.2g}"))
        bar.set_label(name, fontsize=SMALL)
    _write_message(figure, panel, ax, message)
    if ax is None:
        explain_marks(figure, marked)
    return figure


def _new_panel(ax: Axes | None, height: float) -> tuple[Figure, Axes]:
    if ax is None:
        figure: Figure = new_picture(height)
        return figure, figure.subplots()
    if not isinstance(ax, Axes):
        raise ValueError(f"ax: got {ax!r}, expected Matplotlib axes.")
    return find_figure(ax), ax


def _write_message(figure: Figure, panel: Axes, ax: Axes | None, message: str) -> None:
    if ax is None:
        set_message(figure, message)
    else:
        panel.set_title(message, fontsize=NORMAL, loc="left", wrap=True, parse_math=False)


def _spans_decades(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    return bool(positive.size and finite.min() >= 0 and math.log10(positive.max() / positive.min()) > 2)
