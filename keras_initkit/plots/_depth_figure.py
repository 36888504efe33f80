"""The figure of a report: histograms of activations, and the signal by depth, forward and backward."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from keras_initkit.plots._axis_names import crop_names, name_columns, name_line_ends
from keras_initkit.plots._histogram_panels import LayerHistogram, draw_histograms
from keras_initkit.plots._messages import Decades, compare_messages, signal_message
from keras_initkit.plots._picture import (
    ALARM,
    COLORS,
    GRAY,
    OUTSIDE,
    SMALL,
    find_figure,
    new_picture,
    set_message,
    write_inside,
    write_note,
)

THEORY, NOT_JUDGED = "theory", "not judged"
_LARGEST = 300.0  # decades that a float can hold
_HEIGHT = 1.75  # inches of a panel
TITLES = {"forward": "forward: variance of activations", "backward": "backward: squared gradient of an example"}


def signal_by_depth(
    layers: Sequence[str],
    forward: Mapping[str, Decades],
    backward: Mapping[str, Decades],
    histograms: Mapping[str, Sequence[LayerHistogram]] | None = None,
    *,
    healthy: float,
    title: str = "",
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draws the signal by layer, forward and backward, as factors from where it enters; above, histograms.

    What is healthy is white. Points outside are red, and the panel names the layers; a signal that is 0 or not finite
    is marked at the panel's lower or upper edge.

    Args:
        layers: Sequence of strings. Names of the layers, input to output.
        forward, backward: Mapping from each line's name to its values: decades from where the signal enters, one
            for each layer. `None` is a layer without a value, `-inf` a signal of 0, NaN one that is not finite. The
            line `"theory"` is dashed; the points `"not judged"`, whose scale does not matter, are gray. The title says
            what the other lines show.
        histograms: Mapping from a line's name to histograms of its layers' activations. At most eight are drawn.
        healthy: Float. Decades from where it enters within which a signal is healthy; infinity judges nothing.
        title: String. What the title begins with, such as the model's name.
        ax: Matplotlib axes to draw into instead of a new figure: one for both directions, or a pair.

    Raises:
        ValueError: If `ax` is neither axes nor a pair of them.
    """
    series = {"forward": forward, "backward": backward}
    message = _message(layers, forward, backward, healthy if np.isfinite(healthy) else 1.0, title)
    if ax is not None:
        return _draw_into(ax, layers, series, healthy, message)
    histograms = {state: each for state, each in (histograms or {}).items() if each}
    measured = {direction: lines for direction, lines in series.items() if lines} or series
    rows = 0 if not histograms else max(len(histograms), 1 + any(len(each) > 4 for each in histograms.values()))
    above, below = 0.3 + 1.15 * rows, 0.3 + (_HEIGHT + 0.25) * len(measured) + 0.07 * _longest(layers)
    figure = new_picture(0.3 + 0.2 * message.count("\n") + above * bool(rows) + below)
    set_message(figure, message)
    depth: Figure | SubFigure = figure
    if rows:
        upper, depth = figure.subfigures(2, 1, height_ratios=[above, below], squeeze=False)[:, 0]
        draw_histograms(upper, histograms)
    panels = depth.subplots(len(measured), 1, sharex=True, squeeze=False)[:, 0]
    named: set[str] = set()
    for panel, (direction, lines) in zip(panels, measured.items(), strict=True):
        named |= _draw_lines(panel, layers, lines, healthy, named)
        write_note(panel, TITLES[direction], _what_is_outside(layers, lines, healthy), color=ALARM)
    name_columns(panels[-1], layers)
    return figure


def _message(
    layers: Sequence[str], forward: Mapping[str, Decades], backward: Mapping[str, Decades], healthy: float, title: str
) -> str:
    nothing: Decades = [None] * len(layers)
    states = list(dict.fromkeys(name for name in (*forward, *backward) if name not in (THEORY, NOT_JUDGED))) or [THEORY]
    text = compare_messages(
        {
            name: signal_message(layers, forward.get(name, nothing), backward.get(name, nothing), healthy)
            for name in states
        }
    )
    return (title + ("\n" if "\n" in text else ": ") + text) if title else text[:1].upper() + text[1:]


def _draw_into(
    ax: Axes | Sequence[Axes],
    layers: Sequence[str],
    series: Mapping[str, Mapping[str, Decades]],
    healthy: float,
    message: str,
) -> Figure:
    pair = (ax,) if isinstance(ax, Axes) else tuple(ax) if isinstance(ax, (Sequence, np.ndarray)) else ()
    if not 1 <= len(pair) <= 2 or not all(isinstance(each, Axes) for each in pair):
        raise ValueError(f"ax: got {ax!r}, expected Matplotlib axes, or a pair of them (forward, backward).")
    if len(pair) == 2:
        for panel, direction in zip(pair, series, strict=True):
            _draw_lines(panel, layers, series[direction], healthy)
            write_note(panel, TITLES[direction], _what_is_outside(layers, series[direction], healthy), color=ALARM)
            name_columns(panel, layers)
    else:
        both = {
            direction if name == "measured" else f"{direction}, {name}": values
            for direction, lines in series.items()
            for name, values in lines.items()
        }
        _draw_lines(pair[0], layers, both, healthy)
        name_columns(pair[0], layers)
        pair[0].set_title(message, fontsize=SMALL + 1, loc="left", wrap=True, parse_math=False)
    return find_figure(pair[0])


def _draw_lines(
    panel: Axes, layers: Sequence[str], lines: Mapping[str, Decades], healthy: float, named: Collection[str] = ()
) -> set[str]:
    """Draws lines, and names at their ends those that another panel has not named; returns all names that are known."""
    panel.set_yscale("log")
    panel.set_xlim(-0.5, max(len(layers), 1) - 0.5)
    ends: dict[str, tuple[float, str]] = {}
    colors = iter(COLORS)
    for name, values in lines.items():
        numbers = np.array([np.nan if value is None else value for value in values], float)
        there = np.flatnonzero(np.isfinite(numbers))
        style: dict[str, Any] = {
            "color": "black",
            "linestyle": (0, (4, 2)),
            "linewidth": 1.0,
            "marker": "_" * (len(there) == 1),
        }
        if name.endswith(NOT_JUDGED):
            style = {"color": GRAY, "linestyle": "none", "marker": "o", "markersize": 2.5, "markeredgewidth": 0}
        elif not name.endswith(THEORY):
            size = 4 if len(layers) <= 24 else 3 if len(layers) <= 60 else 2
            style = {"color": next(colors), "marker": "o", "markersize": size, "linewidth": 1.3, "markeredgewidth": 0}
        # A layer that is not judged leaves no gap in the line.
        drawn = 10.0 ** np.clip(numbers[there], -_LARGEST, _LARGEST)
        panel.plot(there, drawn, label=name, **style)
        if len(there):
            ends[name] = float(drawn[-1]), style["color"]
        if name.endswith((THEORY, NOT_JUDGED)):
            continue
        far = there[np.abs(numbers[there]) > healthy]
        outside = 10.0 ** np.clip(numbers[far], -_LARGEST, _LARGEST)
        panel.plot(far, outside, "o", color=ALARM, markersize=style["markersize"] + 0.5, zorder=3)
        for what, place, height, marker in _broken(values):
            panel.plot(
                place,
                [height] * len(place),
                transform=panel.get_xaxis_transform(),
                linestyle="none",
                marker=marker,
                color=ALARM,
                label=f"{name} {what}",
            )
    if not ends and not any(len(place) for values in lines.values() for _, place, _, _ in _broken(values)):
        write_inside(panel, "nothing was measured")
        return set()
    draw_decades_axis(panel, healthy)
    # Backward, all lines end where the gradient enters: names above it tell them apart.
    name_line_ends(
        panel, {name: end for name, end in ends.items() if name not in named and lines.keys() != {"measured"}}, _HEIGHT
    )
    return set(ends)


def draw_decades_axis(panel: Axes, healthy: float) -> None:
    """Makes the vertical axis one of factors from where the signal enters; what is healthy is white."""
    panel.set_yscale("log")
    room = healthy if np.isfinite(healthy) else 1.0
    low, high = panel.dataLim.intervaly
    low, high = (low, high) if 0 < low <= high < np.inf else (1.0, 1.0)
    panel.set_ylim(min(low / 2.0, 10 ** -(room + 0.5)), max(high * 2.0, 10 ** (room + 0.5)))
    if np.isfinite(healthy):
        panel.set_facecolor(OUTSIDE)
        panel.axhspan(10**-healthy, 10**healthy, color="white", linewidth=0, zorder=0)
    panel.yaxis.set_major_locator(LogLocator(numticks=6))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: factor(np.log10(value))))
    panel.tick_params(labelsize=SMALL, length=2)
    panel.grid(axis="y", alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_ylabel("factor from where\nthe signal enters", fontsize=SMALL)


def factor(decades: float) -> str:
    """Returns a power of 10 as a person writes it: `"1/10"`, `"1"`, `"100"`, or with an exponent."""
    power = round(decades)
    if abs(power) > 3:
        return f"$10^{{{power}}}$"
    return f"{10**power:,}" if power >= 0 else f"1/{10**-power:,}"


def _broken(values: Decades) -> list[tuple[str, list[int], float, str]]:
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    lost = [place for place, value in known if np.isnan(value) or value == np.inf]
    zero = [place for place, value in known if value == -np.inf]
    return [("not finite", lost, 0.95, "X")] * bool(lost) + [("0", zero, 0.05, "v")] * bool(zero)


def _what_is_outside(layers: Sequence[str], lines: Mapping[str, Decades], healthy: float) -> str:
    """Returns the names of the last measured line's layers that are not healthy."""
    measured = [values for name, values in lines.items() if not name.endswith((THEORY, NOT_JUDGED))]
    if not measured:
        return ""
    short = crop_names(layers, 17)  # two of them fit beside the panel's title
    names = [short[layer] for layer in layers]
    notes = [_listed(what, [names[i] for i in place]) for what, place, _, _ in _broken(measured[-1])]
    far = [i for i, v in enumerate(measured[-1]) if v is not None and np.isfinite(v) and abs(v) > healthy]
    far.sort(key=lambda i: -abs(measured[-1][i] or 0.0))
    if far:
        notes.append(f"{len(far)} outside" if notes else _listed("outside", [names[i] for i in far]))
    return "; ".join(notes)


def _listed(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" * (len(names) > 2)
    return f"{what}: {', '.join(names[:2])}{more}"


def _longest(layers: Sequence[str]) -> int:
    return max((min(len(name), 20) for name in layers), default=0)
