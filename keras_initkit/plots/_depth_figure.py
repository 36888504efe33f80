"""The figure of a report: histograms of the layers' activations, and variance by depth both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from keras_initkit.plots._panels import Histogram, crop_name, draw_histogram, mark_empty, shared_range

Series = Sequence[float | None]
PANELS, TICKS = 10, 48
# Okabe and Ito's colors, which color-blind readers can tell apart; marks and dashes tell them apart in gray.
_MEASURED: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "marker": "o", "markersize": 4},
    {"color": "#E69F00", "marker": "s", "markersize": 3.5, "linewidth": 1, "zorder": 1.9},
)
_PREDICTED: dict[str, Any] = {
    "color": "black",
    "linestyle": (0, (4, 2)),
    "marker": "+",
    "markersize": 5,
    "linewidth": 1.2,
}
_BAND, _ALARM = "#009E73", "#D55E00"


def signal_by_depth(
    layers: Sequence[str],
    histograms: Sequence[Histogram | None],
    forward: Mapping[str, Series],
    backward: Mapping[str, Series],
    bands: Sequence[tuple[float, float] | None] = (None, None),
    caption: str = "",
) -> Figure:
    """Draws a row of activation histograms; below it the variance by layer, forward and backward.

    Args:
        layers: Sequence of strings. Names of the layers, input to output.
        histograms: Sequence of pairs. Counts and bin edges of each layer's activations; at most ten are drawn,
            evenly spread, the first and the last among them.
        forward, backward: Mapping from each series' name to the variance of each layer; a name that starts with
            `"predicted"` is drawn as theory's. `None` is a layer without a value. A measured variance that is 0 or
            not finite has no place on the logarithmic axis: it is marked at the panel's lower or upper edge and named.
        bands: Pair of pairs. The healthy range, forward and backward; `None` draws none.
        caption: String. What was measured, for the title.
    """
    shown = _evenly([i for i, histogram in enumerate(histograms) if histogram is not None], PANELS)
    # Layers' names hang below: the longest decides how much room they take.
    height = 6.4 + 0.06 * max((len(crop_name(name, 26)) for name in layers), default=0) + 2 * bool(shown)
    figure = Figure(figsize=(12, height), layout="constrained")
    figure.suptitle(caption, wrap=True, parse_math=False)
    depth: Figure | SubFigure = figure
    if shown:
        above, depth = figure.subfigures(2, 1, height_ratios=[2, height - 2], squeeze=False)[:, 0]
        _draw_histograms(above, [crop_name(layers[i], 18) for i in shown], [histograms[i] for i in shown])  # type: ignore
    rows = depth.subplots(2, 1, sharex=True)
    titles = ("forward: variance of activations", "backward: variance of gradients")
    for panel, series, band, title in zip(rows, (forward, backward), bands, titles, strict=True):
        _draw_curves(panel, layers, series, band)
        panel.set_title(title, loc="left", fontsize=10)
    step = -(-len(layers) // TICKS) or 1
    ticks = range(0, len(layers), step)
    names = [crop_name(layers[i], 26) for i in ticks]
    rows[1].set_xticks([i + 1 for i in ticks], names, rotation=90, fontsize=7, parse_math=False)
    rows[0].tick_params(labelbottom=False)
    rows[1].set_xlim(0.5, max(len(layers), 1) + 0.5)
    return figure


def _draw_histograms(figure: SubFigure, names: Sequence[str], histograms: Sequence[Histogram]) -> None:
    ranges = [shared_range([histogram]) for histogram in histograms]
    whole = shared_range(histograms)
    widths = [high - low for (low, high), (counts, _) in zip(ranges, histograms, strict=True) if np.any(counts)]
    # One range for all shows a collapse; but of layers a factor 50 apart it would show nothing else.
    shared = not widths or min(widths) * 50 >= whole[1] - whole[0]
    title = "activations, one range for all" if shared else "activations, each layer in its own range"
    figure.suptitle(title, x=0.005, ha="left", fontsize=10)
    panels = figure.subplots(1, max(len(names), 5))
    for panel in panels[len(names) :]:
        panel.remove()
    for panel, name, histogram, own in zip(panels, names, histograms, ranges, strict=False):
        draw_histogram(panel, histogram, whole if shared else own)
        panel.set_title(name, fontsize=7, parse_math=False)


def _draw_curves(
    panel: Axes, layers: Sequence[str], series: Mapping[str, Series], band: tuple[float, float] | None
) -> None:
    positions = np.arange(1, len(layers) + 1)
    panel.set_yscale("log")
    panel.grid(alpha=0.3)
    if band is not None:
        panel.axhspan(
            *band, color=_BAND, alpha=0.2, linewidth=0, label="healthy: within 10,000 times\nof where the signal enters"
        )
    absent: dict[str, list[int]] = {"not finite": [], "0": []}
    measured = iter(_MEASURED)
    drawn = False
    for name, values in series.items():
        numbers = np.array([np.nan if value is None else value for value in values], float)
        visible = np.isfinite(numbers) & (numbers > 0)
        drawn = drawn or bool(visible.any())
        there = np.array([value is not None for value in values], bool)
        predicted = name.startswith("predicted")
        style = dict(_PREDICTED if predicted else next(measured))
        if len(layers) > 60:
            style["markersize"] = 2
        panel.plot(positions, np.where(visible, numbers, np.nan), label=name, **style)
        if not predicted:
            absent["not finite"] += list(np.flatnonzero(there & ~np.isfinite(numbers)))
            absent["0"] += list(np.flatnonzero(there & (numbers == 0)))
    notes = []
    for (what, where), height, marker in zip(absent.items(), (0.96, 0.04), "Xv", strict=True):
        where = sorted(set(where))
        if where:
            panel.plot(
                positions[where],
                [height] * len(where),
                transform=panel.get_xaxis_transform(),
                linestyle="none",
                marker=marker,
                color=_ALARM,
                label=f"variance {what}",
            )
            more = f" and {len(where) - 1} more" * (len(where) > 1)
            notes.append(f"variance {what}: {crop_name(layers[where[0]], 40)}{more}")
    panel.set_title("; ".join(notes), loc="right", fontsize=8, color=_ALARM, parse_math=False)
    if not drawn:
        mark_empty(panel)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)


def _evenly(items: Sequence[int], number: int) -> list[int]:
    """Returns at most so many of the items, evenly spread, with the first and the last."""
    if len(items) <= number:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, number).round().astype(int)]
