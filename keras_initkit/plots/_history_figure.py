"""The figure of a training run: the signal of every layer at every measured step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from keras_initkit.plots._depth_figure import TITLES, factor
from keras_initkit.plots._heat_map import Cells, as_array, draw_map, explain_marks, map_height, name_layers
from keras_initkit.plots._messages import WORDS, change_in_words, farthest
from keras_initkit.plots._picture import GROWN, SHRUNK, SMALL, find_figure, new_picture, set_message, write_note


def signal_over_training(
    layers: Sequence[str],
    steps: Sequence[int],
    forward: Cells,
    backward: Cells,
    *,
    healthy: float,
    not_judged: Sequence[Cells] = (),
    title: str = "",
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Draws heat maps of activations and of gradients side by side: a row for each layer, first on top.

    White is healthy; blue is too small, red too large, relative to where the signal enters at that step. A column is a
    measured step; above 400 of them a column shows several that follow one another by their mean, and is marked
    if one of them is not finite or 0.

    Args:
        layers: Sequence of strings. Names of the layers, input to output.
        steps: Sequence of integers. Numbers of the measured steps, ascending.
        forward, backward: Sequences of a sequence for each layer. Decades from where the signal enters, by step;
            `None` where there is none, `-inf` a signal of 0, NaN one that is not finite.
        healthy: Float. Decades from where it enters within which a signal is healthy.
        not_judged: Pair of such sequences, forward and backward. Layers whose scale does not matter, drawn in gray.
        title: String. What the title begins with, such as the model's name.
        ax: Pair of Matplotlib axes to draw into instead of a new figure.

    Raises:
        ValueError: If `ax` is no pair of axes.
    """
    maps = {"forward": as_array(forward, layers, steps), "backward": as_array(backward, layers, steps)}
    message = "; ".join(
        _message(layers, steps, direction, cells, healthy) for direction, cells in maps.items() if cells.count()
    )
    message = message or "no layer is judged"
    message = f"{title}: {message}" if title else message
    finite = np.concatenate([np.abs(cells.compressed()) for cells in maps.values()])
    limit = max(healthy + 2.0, math.ceil(min(np.max(finite[np.isfinite(finite)], initial=0.0), 300.0)))
    height = map_height(layers)
    if ax is None:
        figure: Figure = new_picture(height + 1.1)
        set_message(figure, message)
        pair = figure.subplots(1, 2, sharey=True)
    else:
        pair = tuple(ax) if isinstance(ax, (Sequence, np.ndarray)) else ()
        if len(pair) != 2 or not all(isinstance(each, Axes) for each in pair):
            raise ValueError(
                f"ax: got {ax!r}, expected a pair of Matplotlib axes, forward and backward, or one with statistic=."
            )
        figure = find_figure(pair[0])
    image, marked = None, set[str]()
    for panel, (direction, cells), others in zip(pair, maps.items(), not_judged or ((), ()), strict=True):
        write_note(panel, TITLES[direction])
        gray = as_array(others, layers, steps) if others else None
        drawn, marks = draw_map(panel, cells, steps, _diverging(limit, healthy), (-limit, limit), gray)
        image, marked = drawn or image, marked | marks
    name_layers(pair[0], layers)
    if image is not None:
        bar = figure.colorbar(image, ax=list(pair), pad=0.01, fraction=0.05, aspect=8 * height)
        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, symmetric=True))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda power, _: factor(power)))
        bar.ax.tick_params(labelsize=SMALL, length=2)
        bar.set_label("factor from where the signal enters", fontsize=SMALL)
    if ax is None:
        explain_marks(figure, marked)
    return figure


def _diverging(limit: float, healthy: float) -> Colormap:
    """Returns colors from blue over white to red; what is healthy is white, and its border shows."""
    edge = healthy / (2 * limit)
    stops = [
        (0.0, "#003A5C"), (0.25 * (1 - 2 * edge), SHRUNK), (0.5 - edge, "#BFDCEC"), (0.5, "white"),
        (0.5 + edge, "#FCEFE4"), (0.5 + edge, "#F8DCC4"), (0.75 + 0.5 * edge, GROWN), (1.0, "#6B2F00"),
    ]  # fmt: skip
    return LinearSegmentedColormap.from_list("decades", stops, N=1024)


def _message(
    layers: Sequence[str], steps: Sequence[int], direction: str, cells: np.ma.MaskedArray, healthy: float
) -> str:
    """Returns what is worst over the run, where and when, and whether it passed."""
    by_step = [[None if x is np.ma.masked else float(x) for x in column] for column in cells.T]
    worst = [(extreme, step) for step, column in enumerate(by_step) if (extreme := farthest(column)) is not None]
    broken = [each for each in worst if math.isnan(each[0].decades)]
    extreme, step = broken[0] if broken else max(worst, key=lambda each: abs(each[0].decades))
    text = f"{WORDS[direction]} {change_in_words(extreme.decades, healthy)}"
    if abs(extreme.decades) <= healthy:
        return text + (f" at all {len(steps):,} measured steps" if len(steps) > 1 else "")
    text += f" in {layers[extreme.place]} at step {steps[step]:,}"
    return text + ", but not at the end" * (abs(worst[-1][0].decades) <= healthy)
