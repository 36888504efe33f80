"""Histograms of a comparison: a panel for each initializer, the layers side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_initkit.plots._histogram_panels import PANELS, LayerHistogram, choose_evenly, shared_reach
from keras_initkit.plots._picture import COLORS, SMALL, new_picture, set_message

_LAYERS = 10


def activation_histograms(histograms: Mapping[str, Sequence[LayerHistogram]], caption: str = "") -> Figure:
    """Draws activation histograms: a panel for each initializer, its layers side by side.

    Each layer is drawn in its own standard deviation, which is written above it. At most eight initializers and ten
    layers are drawn, evenly spread.

    Args:
        histograms: Mapping from each initializer to a histogram for each layer.
        caption: String. What was measured, for the title.
    """
    names = list(histograms)
    shown = [names[i] for i in choose_evenly(len(names), PANELS)]
    places = choose_evenly(len(histograms[names[0]]), _LAYERS)
    message = _message(histograms)
    figure = new_picture(0.72 * len(shown) + 0.8)
    set_message(figure, f"{caption}: {message}" if caption else message)
    reach = shared_reach([each for name in shown for i in places if not (each := histograms[name][i]).trouble])
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for panel, name in zip(panels, shown, strict=True):
        layers = [histograms[name][i] for i in places]
        for place, layer in enumerate(layers):
            _draw(panel, place, layer, reach)
        zeros = [layer.zero_fraction for layer in layers if not layer.trouble]
        most = f"\n{np.mean(zeros):.0%} are 0" if zeros and np.mean(zeros) >= 0.05 else ""
        panel.set_ylabel(name + most, rotation=0, ha="right", va="center", fontsize=SMALL, parse_math=False)
        panel.set(yticks=[], ylim=(0, 1.45), xlim=(0, len(places)))
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[-1].set_xticks([i + 0.5 for i in range(len(places))], [str(i + 1) for i in places], fontsize=SMALL)
    panels[-1].set_xlabel("hidden layer; the number above each is its standard deviation", fontsize=SMALL)
    if len(shown) < len(names):
        left = ", ".join(name for name in names if name not in shown)
        figure.supxlabel(f"Not drawn: {left}.", x=0.01, ha="left", fontsize=SMALL, wrap=True, parse_math=False)
    return figure


def _draw(panel: Axes, place: int, layer: LayerHistogram, reach: tuple[float, float]) -> None:
    middle: dict[str, Any] = {"ha": "center", "fontsize": SMALL}
    if layer.trouble:
        panel.text(place + 0.5, 0.5, layer.trouble, va="center", **middle)
        return
    edges, counts = layer.in_deviations(), layer.without_zeros()
    inside = (edges[:-1] >= reach[0]) & (edges[1:] <= reach[1])
    first, last = np.flatnonzero(inside)[[0, -1]]
    edges, counts = edges[first : last + 2], counts[first : last + 1]
    across = place + 0.06 + 0.88 * (edges - reach[0]) / (reach[1] - reach[0])
    panel.stairs(counts / max(counts.max(), 1), across, fill=True, color=COLORS[0])
    panel.text(place + 0.5, 1.42, f"{layer.deviation:.2g}", va="top", **middle)


def _message(histograms: Mapping[str, Sequence[LayerHistogram]]) -> str:
    """Returns from which initializer the deviation changes most, and from where to where."""
    change = {}
    for name, layers in histograms.items():
        first, last = layers[0].deviation, layers[-1].deviation
        if first > 0 and last > 0 and math.isfinite(first) and math.isfinite(last):
            change[name] = abs(math.log10(last / first)), first, last
    if not change:
        return "no initializer has a signal"
    worst = max(change, key=lambda name: change[name][0])
    _, first, last = change[worst]
    return f"the standard deviation of activations changes most from {worst}, {first:.2g} to {last:.2g}"
