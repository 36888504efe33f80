"""Figures of a comparison: the same model from many initializations."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_initkit.plots._axis_names import name_line_ends
from keras_initkit.plots._depth_figure import draw_decades_axis
from keras_initkit.plots._picture import COLORS, GRAY, SMALL, new_picture, set_message, write_inside, write_note

Series = Mapping[str, np.ndarray]
_FORWARD = "forward: variance of activations"


def variance_by_layer(forward: Series, backward: Series, caption: str = "", *, healthy: float) -> Figure:
    """Draws the variance of activations and of gradients by layer, as factors from where the signal enters.

    At most six initializers have a color and a name: the farthest from a level signal, the nearest, and some between.

    Args:
        forward, backward: Mapping from each initializer to variances of shape `(seeds, layers)`. The line is the
            geometric mean over the seeds, the band one standard deviation of the logarithm; a variance of 0 or one
            that is not finite has no place on the axis and is named below.
        caption: String. What was measured, for the title.
        healthy: Float. Decades from where it enters within which a signal is healthy.
    """
    decades = {
        _FORWARD: {name: _decades(values, 0) for name, values in forward.items()},
        "backward: variance of gradients": {name: _decades(values, -1) for name, values in backward.items()},
    }
    distance = {name: max(_farthest(_mean(lines[name])[0]) for lines in decades.values()) for name in forward}
    broken = {name: note for name in forward if (note := _absent(forward[name], backward[name]))}
    steady = [name for name in forward if name not in broken and distance[name] <= healthy]
    colors = _choose(
        sorted((n for n in distance if np.isfinite(_mean(decades[_FORWARD][n])[0]).any()), key=distance.__getitem__)
    )
    figure = new_picture(5.4)
    message = f"the signal stays healthy{_from(steady, list(forward))}"
    set_message(figure, f"{caption}: {message}" if caption else message)
    panels = figure.subplots(2, 1, sharex=True)
    panels[1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    for panel, (title, lines) in zip(panels, decades.items(), strict=True):
        layers = np.arange(1, 1 + max(values.shape[1] for values in lines.values()))
        panel.set_xlim(0.5, len(layers) + 0.5)  # a layer without a point keeps its place
        ends = {}
        for name in sorted(lines, key=lambda name: name in colors):  # what has a color lies on top
            mean, deviation = _mean(lines[name])
            drawn = np.isfinite(mean)
            style = _style(colors.get(name))
            panel.plot(layers, 10**mean, label=name, **style)
            if name in colors and len(lines[name]) > 1:
                band = 10 ** (mean - deviation), 10 ** (mean + deviation)
                panel.fill_between(layers, *band, color=style["color"], alpha=0.2, linewidth=0)
            if name in colors and drawn.any():
                ends[name] = float(10 ** mean[drawn][-1]), style["color"]
        if any(np.isfinite(line.get_ydata()).any() for line in panel.lines):
            draw_decades_axis(panel, healthy)
            if title == _FORWARD:  # backward, all lines end where the gradient enters
                name_line_ends(panel, ends, 2.0)
        else:
            write_inside(panel, "nothing above 0 and finite")
        write_note(panel, title)
    panels[1].set_xlabel("hidden layer", fontsize=SMALL)
    _write_below(
        figure,
        [
            *_others([name for name in forward if np.isfinite(_mean(decades[_FORWARD][name])[0]).any()], colors),
            *(f"{name}: {note}." for name, note in broken.items()),
        ],
    )
    return figure


def training_curves(loss: Series, accuracy: Series, caption: str = "") -> Figure:
    """Draws test loss and accuracy by epoch.

    At most six initializers have a color and a name: the most accurate, the least, and some between.

    Args:
        loss, accuracy: Mapping from each initializer to an array of shape `(seeds, epochs)`. The line is the mean,
            the band one standard deviation. A loss that is not finite has no place on the axis and is named below;
            losses of very different size are drawn on a logarithmic axis.
        caption: String. What was measured, for the title.
    """
    figure = new_picture(3.6)
    last = {name: float(np.nanmean(values[:, -1])) for name, values in accuracy.items()}
    order = sorted(last, key=lambda name: -last[name])
    colors = _choose(order)
    epochs = next(iter(accuracy.values())).shape[1]
    message = f"{order[0]} reaches {last[order[0]]:.0%} test accuracy in {epochs} epoch{'s' * (epochs > 1)}"
    message += f", {order[-1]} {last[order[-1]]:.0%}" if len(order) > 1 else ""
    set_message(figure, f"{caption}: {message}" if caption else message)
    positive = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in loss.values()])
    panels = figure.subplots(1, 2)
    for panel, series, title in zip(panels, (loss, accuracy), ("test loss", "test accuracy"), strict=True):
        write_note(panel, title)
        panel.set_xlabel("epoch", fontsize=SMALL)
        panel.tick_params(labelsize=SMALL, length=2)
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.25, linewidth=0.6)
        panel.set_xlim(0.5, epochs + 0.5)
        for name in sorted(series, key=lambda name: name in colors):
            _line_and_band(panel, name, series[name], colors.get(name))
    if positive.size and positive.max() > 100 * positive.min():
        panels[0].set_yscale("log")
    ends = {name: (last[name], color) for name, color in colors.items() if np.isfinite(last[name])}
    panels[1].set_ylim(panels[1].get_ylim())
    name_line_ends(panels[1], ends, 2.6)
    lost = [name for name, values in loss.items() if not np.isfinite(values).all()]
    _write_below(figure, [*_others(accuracy, colors), f"Loss not finite: {', '.join(lost)}." if lost else ""])
    return figure


def _line_and_band(panel: Axes, name: str, values: np.ndarray, color: str | None) -> None:
    values = np.where(np.isfinite(values), values, np.nan)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    epochs = np.arange(1, values.shape[1] + 1)
    panel.plot(epochs, mean, label=name, **_style(color))
    if color and len(values) > 1:
        panel.fill_between(epochs, mean - deviation, mean + deviation, color=color, alpha=0.2, linewidth=0)


def _decades(values: np.ndarray, entry: int) -> np.ndarray:
    """Returns logarithms of variances over that of the layer where the signal enters; NaN without one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(np.where((values > 0) & np.isfinite(values), values, np.nan))
    enters = logs[:, [entry]]
    if np.isnan(enters).any():  # the first that there is
        known = [row[np.isfinite(row)] for row in logs]
        enters = np.array([[row[entry] if row.size else np.nan] for row in known])
    return logs - enters


def _farthest(decades: np.ndarray) -> float:
    return float(np.max(np.abs(decades), initial=0.0, where=np.isfinite(decades)))


def _mean(decades: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return decades.mean(axis=0), decades.std(axis=0)


def _absent(forward: np.ndarray, backward: np.ndarray) -> str:
    """Returns in how many layers an initializer has no point, and why."""
    notes = []
    for direction, values in (("forward", forward), ("backward", backward)):
        for what, where in (("0", (values == 0).any(axis=0)), ("not finite", ~np.isfinite(values).all(axis=0))):
            if where.any():
                notes.append(f"{direction} {what}" + f" in {where.sum()} of {where.size}" * (not where.all()))
    return ", ".join(notes)


def _choose(ordered: Sequence[str]) -> dict[str, str]:
    """Returns the colors of at most six names, evenly spread over their order, with the first and the last."""
    places = np.unique(np.linspace(0, len(ordered) - 1, min(len(COLORS), len(ordered))).round().astype(int))
    return dict(zip([ordered[i] for i in places], COLORS, strict=False))


def _style(color: str | None) -> dict:
    if color is None:
        return {"color": GRAY, "linewidth": 0.7, "alpha": 0.6}
    return {"color": color, "marker": "osD^vP"[COLORS.index(color)], "markersize": 4, "linewidth": 1.3}


def _others(names: Iterable[str], colors: Mapping[str, str]) -> list[str]:
    others = [name for name in names if name not in colors]
    return [f"Gray: {', '.join(others)}."] if others else []


def _from(healthy: Sequence[str], names: Sequence[str]) -> str:
    """Returns from which initializers, in as few names as it takes."""
    if len(healthy) in (0, len(names)):
        return " from every initializer" if healthy else " from no initializer"
    others = [name for name in names if name not in healthy]
    shown, how = (healthy, " only from ") if len(healthy) <= len(others) else (others, ", but not from ")
    head = shown if len(shown) < 5 else [*shown[:4], f"{len(shown) - 4} more"]
    return how + ", ".join(head[:-1]) + " and " * (len(head) > 1) + head[-1]


def _write_below(figure: Figure, notes: Sequence[str]) -> None:
    text = "\n".join(textwrap.fill(note, 105) for note in notes if note)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALL, parse_math=False)
