"""One small picture of one kind of finding, for diagnosis_pictures.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

BLUE, ORANGE = "#0072B2", "#D55E00"


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
        figure = Figure(figsize=(4.8, 1.9), layout="constrained")
        ax = figure.subplots()
        for place, (figures, color, form) in enumerate(((self.healthy, BLUE, "o-"), (self.broken, ORANGE, "s--"))):
            x = np.arange(len(figures)) if self.x is None else np.asarray(self.x)
            name = ("healthy", "broken")[place]
            if self.bars:
                ax.bar(x + 0.4 * (place - 0.5), figures, 0.4, color=color, label=name)
            else:
                ax.plot(x, figures, form, color=color, markersize=3.5, linewidth=1.2, label=name)
        for level, draw in ((self.threshold, ax.axhline), (self.across, ax.axvline)):
            if level is not None:
                draw(level, color="black", linewidth=0.9, linestyle=":")
        if self.log:
            ax.set_yscale("log")
        ax.set_ylabel(self.label, fontsize=8)
        ax.set_xlabel(self.x_label, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.savefig(folder / f"{self.kind}.png", dpi=100, pil_kwargs={"optimize": True})
