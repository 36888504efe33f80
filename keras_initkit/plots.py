"""Matplotlib figures of what was measured. They take plain numbers and return figures; nothing is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Histogram = tuple[Sequence[int], Sequence[float]]


def activation_histograms(histograms: Mapping[str, Sequence[Histogram]], caption: str = "") -> Figure:
    """Small panels of activation histograms: a row for each initializer, a column for each layer.

    The panels of a row share their horizontal range; a bar that leaves a panel is cut at its upper edge.

    Args:
        histograms: counts and bin edges of each layer, by initializer.
        caption: what was measured, for the title.
    """
    layers = len(next(iter(histograms.values())))
    height = 1.15 * len(histograms) + 0.9
    figure = Figure(figsize=(1.35 * layers + 1.9, height), layout="constrained")
    figure.suptitle(f"Activations before training: {caption}")
    panels = figure.subplots(len(histograms), layers, squeeze=False)
    for row, (name, by_layer) in zip(panels, histograms.items(), strict=True):
        low = min(edges[0] for _, edges in by_layer)
        high = max(edges[-1] for _, edges in by_layer)
        for panel, (counts, edges) in zip(row, by_layer, strict=True):
            panel.stairs(counts, edges, fill=True, color="tab:blue")
            panel.set_xlim(low, high)  # one range for a row, so that a collapse is seen as one
            panel.set_xticks([low, high], [f"{low:.2g}", f"{high:.2g}"], fontsize=7)
            for label, side in zip(panel.get_xticklabels(), ("left", "right"), strict=True):
                label.set_horizontalalignment(side)
            *_, second, largest = sorted(counts)
            panel.set_ylim(0, 1.2 * (second or largest or 1))  # the bin of ReLU's zeros would hide the rest
            panel.set_yticks([])
            panel.text(
                0.97,
                0.93,
                f"sd {_deviation(counts, edges):.1e}",
                ha="right",
                va="top",
                fontsize=7,
                transform=panel.transAxes,
            )
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for column, panel in enumerate(panels[0]):
        panel.set_title(f"layer {column + 1}", fontsize=9)
    return figure


def _deviation(counts: Sequence[int], edges: Sequence[float]) -> float:
    """Standard deviation of a histogram's values, to about a bin's width."""
    centres, weights = np.convolve(edges, [0.5, 0.5], "valid"), np.asarray(counts) / max(np.sum(counts), 1)
    return float(np.sqrt(weights @ (centres - weights @ centres) ** 2))


def variance_by_layer(
    forward: Mapping[str, np.ndarray], backward: Mapping[str, np.ndarray], caption: str = ""
) -> Figure:
    """Variance of activations and of gradients by layer, on a logarithmic axis.

    Args:
        forward, backward: variances by initializer, shape (seeds, layers). The line is the geometric mean over
            the seeds, the band one standard deviation of the logarithm; a variance of 0 has no place on the axis
            and is named in the legend.
        caption: what was measured, for the title.
    """
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    figure.suptitle(f"Signal before training: {caption}")
    panels = figure.subplots(1, 2)
    titles = ("forward: variance of activations", "backward: variance of gradients")
    for panel, series, title in zip(panels, (forward, backward), titles, strict=True):
        panel.set(title=title, xlabel="hidden layer", yscale="log")
        panel.xaxis.get_major_locator().set_params(integer=True)
        for style, (name, values) in zip(_styles(len(series)), series.items(), strict=True):
            with np.errstate(divide="ignore"):
                logs = np.log(np.where(values > 0, values, np.nan))
            mean, deviation = logs.mean(axis=0), logs.std(axis=0)
            layers = np.arange(1, values.shape[1] + 1)
            label = f"{name} (0)" if not (values > 0).any() else name
            panel.plot(layers, np.exp(mean), label=label, **style)
            if len(values) > 1:
                band = np.exp(mean - deviation), np.exp(mean + deviation)
                panel.fill_between(layers, *band, color=style["color"], alpha=0.15, linewidth=0)
        panel.grid(alpha=0.3)
    panels[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return figure


def training_curves(loss: Mapping[str, np.ndarray], accuracy: Mapping[str, np.ndarray], caption: str = "") -> Figure:
    """Test loss and accuracy by epoch.

    Args:
        loss, accuracy: by initializer, shape (seeds, epochs); the line is the mean, the band one standard deviation.
        caption: what was measured, for the title.
    """
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    figure.suptitle(f"Training: {caption}")
    panels = figure.subplots(1, 2)
    for panel, series, title in zip(panels, (loss, accuracy), ("test loss", "test accuracy"), strict=True):
        panel.set(title=title, xlabel="epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        for style, (name, values) in zip(_styles(len(series)), series.items(), strict=True):
            _line_and_band(panel, name, values, style)
        panel.grid(alpha=0.3)
    panels[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return figure


def _line_and_band(panel: Axes, name: str, values: np.ndarray, style: dict) -> None:
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    epochs = np.arange(1, values.shape[1] + 1)
    panel.plot(epochs, mean, label=name, **style)
    if len(values) > 1:
        panel.fill_between(epochs, mean - deviation, mean + deviation, color=style["color"], alpha=0.15, linewidth=0)


def _styles(number: int) -> list[dict]:
    """Colours, and markers and dashes that still tell lines apart in grey or on top of each other."""
    colors = matplotlib.colormaps["tab10"](range(10))
    return [
        {
            "color": colors[i % 10],
            "marker": "osD^vP*Xh<>"[i % 11],
            "linestyle": ("-", "--", ":")[i % 3],
            "markersize": 4,
        }
        for i in range(number)
    ]
