"""One small picture of one kind of finding, for diagnosis_pictures.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from picture_messages import MESSAGES

from keras_initkit.plots._axis_names import name_line_ends
from keras_initkit.plots._picture import ALARM, COLORS, SMALL

SIZE = 6.0, 2.2  # inches; at 100 dots an inch as wide as a page
STYLES = {"healthy": (COLORS[0], "o-"), "broken": (ALARM, "s--")}


@dataclass(frozen=True)
class Panel:
    """Figures of a healthy program and of a broken one.

    Args:
        kind: String. The kind of finding.
        label: String. What the figures are.
        healthy: Figures of the healthy program.
        broken: Figures of the broken one.
        threshold: Float. The rule's threshold, where it is one number.
        x_label: String. What they are figures of.
        x: Their places; 0, 1, ... by default.
        log: Boolean. Whether the scale is logarithmic.
        bars: Boolean. Whether they are drawn as bars, side by side.
        across: Float. Where a vertical line is drawn.
    """

    kind: str
    label: str
    healthy: Sequence[float] | np.ndarray
    broken: Sequence[float] | np.ndarray
    threshold: float | None = None
    x_label: str = "layer"
    x: Sequence[float] | np.ndarray | None = None
    log: bool = False
    bars: bool = False
    across: float | None = None

    def save(self, folder: Path) -> None:
        """Draws it into a file named after the kind."""
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.suptitle(MESSAGES[self.kind], fontsize=SMALL + 2, x=0.01, ha="left")
        ax = figure.subplots()
        ends = {}
        for side, (name, figures) in zip((-1, 1), (("healthy", self.healthy), ("broken", self.broken)), strict=True):
            values = np.asarray(figures, float)
            x = np.arange(len(values)) if self.x is None else np.asarray(self.x)
            color, form = STYLES[name]
            if self.bars:
                ax.bar(x + 0.2 * side, values, 0.4, color=color)
            else:
                ax.plot(x, values, form, color=color, markersize=4, linewidth=1.3, markeredgewidth=0)
            ends[name] = float(values.max() if self.bars else values[np.isfinite(values)][-1]), color
        for level, draw in ((self.threshold, ax.axhline), (self.across, ax.axvline)):
            if level is not None:
                draw(level, color="black", linewidth=0.9, linestyle=":")
        if self.log:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(numticks=6))
            ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylabel(self.label, fontsize=SMALL)
        ax.set_xlabel(self.x_label, fontsize=SMALL)
        ax.tick_params(labelsize=SMALL, length=2)
        ax.grid(axis="y", alpha=0.25, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_ylim(ax.get_ylim())
        name_line_ends(ax, ends, 1.4)
        figure.savefig(folder / f"{self.kind}.png", dpi=100, pil_kwargs={"optimize": True})
