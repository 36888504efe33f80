"""Figures of a comparison: the same model from many initializations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_initkit.plots._panels import Histogram, draw_histogram, mark_empty, shared_range


def activation_histograms(histograms: Mapping[str, Sequence[Histogram]], caption: str = "") -> Figure:
    """Draws small activation histograms: a row for each initializer, a column for each layer.

    The panels of a row share their horizontal range; a bar that leaves a panel is cut at its upper edge.

    Args:
        histograms: Mapping from each initializer to a pair of counts and bin edges for each layer.
        caption: String. What was measured, for the title.
    """
    layers = len(next(iter(histograms.values())))
    height = 1.15 * len(histograms) + 0.9
    figure = Figure(figsize=(max(1.35 * layers + 1.9, 6.5), height), layout="constrained")
    figure.suptitle(f"Activations before training: {caption}", wrap=True)
    panels = figure.subplots(len(histograms), layers, squeeze=False)
    for row, (name, by_layer) in zip(panels, histograms.items(), strict=True):
        limits = shared_range(by_layer)
        for panel, histogram in zip(row, by_layer, strict=True):
            draw_histogram(panel, histogram, limits)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for column, panel in enumerate(panels[0]):
        panel.set_title(f"layer {column + 1}", fontsize=9)
    return figure


def variance_by_layer(
    forward: Mapping[str, np.ndarray], backward: Mapping[str, np.ndarray], caption: str = ""
) -> Figure:
    """Draws the variance of activations and of gradients by layer, on a logarithmic axis.

    Args:
        forward, backward: Mapping from each initializer to variances of shape `(seeds, layers)`. The line is the
            geometric mean over the seeds, the band one standard deviation of the logarithm; a variance of 0 or one
            that is not finite has no place on the axis and is named in the legend.
        caption: String. What was measured, for the title.
    """
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    figure.suptitle(f"Signal before training: {caption}", wrap=True)
    panels = figure.subplots(1, 2)
    labels = {name: _label(name, forward[name], backward[name]) for name in forward}
    titles = ("forward: variance of activations", "backward: variance of gradients")
    for panel, series, title in zip(panels, (forward, backward), titles, strict=True):
        panel.set(title=title, xlabel="hidden layer", yscale="log")
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        for style, (name, values) in zip(_styles(len(series)), series.items(), strict=True):
            logs = np.log(np.where((values > 0) & np.isfinite(values), values, np.nan))
            mean, deviation = logs.mean(axis=0), logs.std(axis=0)
            layers = np.arange(1, values.shape[1] + 1)
            panel.plot(layers, np.exp(mean), label=labels[name], **style)
            panel.set_xlim(0.5, len(layers) + 0.5)  # a layer without a point keeps its place
            if len(values) > 1:
                band = np.exp(mean - deviation), np.exp(mean + deviation)
                panel.fill_between(layers, *band, color=style["color"], alpha=0.15, linewidth=0)
        panel.grid(alpha=0.3)
        if not any(np.isfinite(line.get_ydata()).any() for line in panel.lines):
            mark_empty(panel)
    panels[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return figure


def _label(name: str, forward: np.ndarray, backward: np.ndarray) -> str:
    """Returns the name, and in how many layers it has no point and why."""
    notes = []
    for values in (forward, backward):
        absent = {"0": (values == 0).any(axis=0), "not finite": ~np.isfinite(values).all(axis=0)}
        counts = [(why, where.sum(), where.size) for why, where in absent.items() if where.any()]
        notes.append(", ".join(why if n == of else f"{why} in {n} of {of}" for why, n, of in counts))
    if notes[0] == notes[1]:
        return f"{name} ({notes[0]})" if notes[0] else name
    both = zip(("forward", "backward"), notes, strict=True)
    return "\n".join([name, *(f"({direction} {note})" for direction, note in both if note)])


def training_curves(loss: Mapping[str, np.ndarray], accuracy: Mapping[str, np.ndarray], caption: str = "") -> Figure:
    """Draws test loss and accuracy by epoch.

    Args:
        loss, accuracy: Mapping from each initializer to an array of shape `(seeds, epochs)`. The line is the mean,
            the band one standard deviation. A loss that is not finite has no place on the axis and is named in
            the legend; losses of very different size are drawn on a logarithmic axis.
        caption: String. What was measured, for the title.
    """
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    figure.suptitle(f"Training: {caption}", wrap=True)
    positive = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in loss.values()])
    panels = figure.subplots(1, 2)
    for panel, series, title in zip(panels, (loss, accuracy), ("test loss", "test accuracy"), strict=True):
        panel.set(title=title, xlabel="epoch")
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        for style, (name, values) in zip(_styles(len(series)), series.items(), strict=True):
            label = name if np.isfinite(loss[name]).all() else f"{name} (loss not finite)"
            _line_and_band(panel, label, values, style)
        panel.grid(alpha=0.3)
    if positive.size and positive.max() > 100 * positive.min():
        panels[0].set_yscale("log")
    panels[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return figure


def _line_and_band(panel: Axes, name: str, values: np.ndarray, style: dict) -> None:
    values = np.where(np.isfinite(values), values, np.nan)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    epochs = np.arange(1, values.shape[1] + 1)
    panel.plot(epochs, mean, label=name, **style)
    panel.set_xlim(0.5, len(epochs) + 0.5)
    if len(values) > 1:
        panel.fill_between(epochs, mean - deviation, mean + deviation, color=style["color"], alpha=0.15, linewidth=0)


def _styles(number: int) -> list[dict]:
    """Returns colors, and markers and dashes that tell lines apart in gray or on top of each other."""
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
