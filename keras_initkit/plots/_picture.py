"""What all figures share: size, colors, and how a figure shows itself in a notebook."""

from __future__ import annotations

import io
import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 8.0  # inches; at 600 pixels, the width of a page, 8 points are 8 pixels high
SMALL, NORMAL = 8, 9
# Okabe and Ito's colors, which color-blind readers can tell apart. Above six lines nobody follows one.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
ALARM, GRAY, OUTSIDE = "#D55E00", "#767676", "#F0F0F0"
SHRUNK, GROWN = "#0072B2", ALARM  # smaller and larger than where the signal enters


class Picture(Figure):
    """A Matplotlib figure that a notebook shows where it is the last value of a cell.

    A figure that pyplot does not know is shown by Jupyter only after pyplot was imported. pyplot keeps figures open;
    this one is kept by nobody.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def new_picture(height: float) -> Picture:
    """Returns an empty figure of this height in inches."""
    return Picture(figsize=(WIDTH, height), layout="constrained")


def set_message(figure: Figure, message: str) -> None:
    """Writes what the figure shows above it, in as many lines as it takes."""
    lines = [textwrap.fill(line, 92, break_long_words=True) for line in message.split("\n")]
    figure.suptitle("\n".join(lines), fontsize=10.5, x=0.01, ha="left", parse_math=False)


def write_inside(panel: Axes, text: str) -> None:
    """Says why a panel is empty."""
    panel.set_yticks([])
    panel.set_yticks([], minor=True)
    panel.text(0.5, 0.5, text, ha="center", va="center", fontsize=NORMAL, transform=panel.transAxes)


def write_note(panel: Axes, title: str, note: str = "", **style: Any) -> None:
    """Writes a panel's title at the left, and what a reader has to know at the right."""
    panel.set_title(title, loc="left", fontsize=NORMAL, parse_math=False)
    panel.set_title(note, loc="right", fontsize=SMALL, parse_math=False, **style)


def find_figure(panel: Axes) -> Figure:
    """Returns the figure that axes are in, at whatever depth."""
    figure = panel.get_figure(root=True)
    if not isinstance(figure, Figure):
        raise ValueError(f"ax: got {panel!r}, which are in no figure; expected axes of a figure.")
    return figure
