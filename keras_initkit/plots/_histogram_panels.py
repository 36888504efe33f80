"""Histograms of layers' activations, each in the layer's own standard deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from keras_initkit.plots._axis_names import crop_names
from keras_initkit.plots._picture import COLORS, GRAY, SMALL

PANELS, REACH = 8, 4.0  # a panel reaches at most so many deviations from the mean


class LayerHistogram(NamedTuple):
    """Activations of one layer.

    Args:
        name: String. Path of the layer.
        counts: Sequence of integers. Number of finite elements in each bin.
        edges: Sequence of floats. Edges of the bins, one more than there are bins.
        mean: Float. Mean of all elements.
        deviation: Float. Standard deviation of all elements.
        zeros: Integer. Number of elements that are exactly 0.
    """

    name: str
    counts: Sequence[int]
    edges: Sequence[float]
    mean: float
    deviation: float
    zeros: int = 0

    @property
    def trouble(self) -> str:
        """Why there is nothing to draw; `""` if there is."""
        if not (np.any(self.counts) and math.isfinite(self.deviation) and math.isfinite(self.mean)):
            return "not finite"
        return f"all {self.mean:.3g}" if self.deviation == 0 else ""

    @property
    def note(self) -> str:
        """The standard deviation as it was measured, and the fraction of zeros if it is 5 % or more."""
        return f"sd {self.deviation:.2g}" + f"\n{self.zero_fraction:.0%} are 0" * (self.zero_fraction >= 0.05)

    @property
    def zero_fraction(self) -> float:
        """Fraction of the finite elements that are exactly 0."""
        return float(self.zeros / max(np.sum(self.counts), 1))

    def without_zeros(self) -> np.ndarray:
        """Returns the counts without the exact zeros, whose spike would hide the rest."""
        counts = np.array(self.counts)
        place = int(np.clip(np.searchsorted(self.edges, 0.0, "right") - 1, 0, len(counts) - 1))
        counts[place] -= min(self.zeros, counts[place])
        return counts

    def in_deviations(self) -> np.ndarray:
        """Returns the edges as standard deviations from the mean."""
        return (np.asarray(self.edges) - self.mean) / self.deviation


def choose_evenly(count: int, number: int) -> list[int]:
    """Returns at most `number` of the places below `count`, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(number, count)).round().astype(int)).tolist() if count else []


def draw_histograms(figure: Figure | SubFigure, states: Mapping[str, Sequence[LayerHistogram]]) -> None:
    """Draws at most eight panels: two rows of one state, or a row for each of two."""
    several = len(states) > 1
    chosen = [
        (state, [layers[i] for i in choose_evenly(len(layers), PANELS // len(states))])
        for state, layers in states.items()
    ]
    shown = [(state, layer) for state, layers in chosen for layer in layers]
    count = max(len(layers) for _, layers in chosen)
    columns = count if several or count <= PANELS // 2 else -(-count // 2)
    rows = len(states) if several else -(-len(shown) // columns)
    panels = figure.subplots(rows, columns, squeeze=False)
    reach = shared_reach([layer for _, layer in shown if not layer.trouble])
    names = crop_names([layer.name for layers in states.values() for layer in layers], 26)
    for panel in panels.flat:
        panel.set_axis_off()
    for row, (state, layers) in enumerate(chosen):
        for place, layer in enumerate(layers):
            panel = panels[row, place] if several else panels[divmod(place, columns)]
            panel.set_axis_on()
            _draw(panel, layer, names[layer.name], reach)
            if several and place == 0:
                panel.set_ylabel(state, fontsize=SMALL)
    figure.supxlabel("activations, as standard deviations from each layer's mean (dotted: 0)", fontsize=SMALL)


def shared_reach(layers: Sequence[LayerHistogram]) -> tuple[float, float]:
    """Returns the range that all panels share, in standard deviations."""
    edges = [layer.in_deviations() for layer in layers] or [np.array([-1.0, 1.0])]
    return max(-REACH, min(e[0] for e in edges)) - 0.1, min(REACH, max(e[-1] for e in edges)) + 0.1


def _draw(panel: Axes, layer: LayerHistogram, name: str, reach: tuple[float, float]) -> None:
    panel.set_title(name, fontsize=SMALL, parse_math=False)
    panel.set_yticks([])
    panel.set_xlim(*reach)
    panel.tick_params(labelsize=SMALL, length=2)
    panel.spines[["top", "right", "left"]].set_visible(False)
    if layer.trouble:
        panel.set_xticks([])
        panel.text(0.5, 0.5, layer.trouble, ha="center", va="center", fontsize=SMALL, transform=panel.transAxes)
        return
    counts = layer.without_zeros()
    panel.stairs(counts, layer.in_deviations(), fill=True, color=COLORS[0])
    panel.set_ylim(0, 1.25 * (counts.max() or 1))
    text: dict[str, Any] = {"fontsize": SMALL, "color": "black", "va": "top", "transform": panel.transAxes}
    right = _mass_center(counts) < len(counts) / 2
    panel.text(0.98 if right else 0.02, 0.97, layer.note, ha="right" if right else "left", **text)
    panel.axvline(-layer.mean / layer.deviation, color=GRAY, linewidth=0.8, linestyle=":")  # where 0 is


def _mass_center(counts: np.ndarray) -> float:
    return float(np.arange(len(counts)) @ counts / max(counts.sum(), 1))
