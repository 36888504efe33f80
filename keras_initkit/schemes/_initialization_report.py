"""The report of `initialize`, as a table, a figure or a dictionary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from keras_initkit._checks import Layers
from keras_initkit._html import heading, listing, table, view
from keras_initkit.report._render_text import short
from keras_initkit.report._report import SignalReport
from keras_initkit.report._table_layout import Cell, Grid, draw_grid
from keras_initkit.report._tables import render_text, terminal_width
from keras_initkit.schemes._plan import UNTOUCHED, WeightChange

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

_ENDS = 20  # kernels that a folded table shows at each end


@dataclass(frozen=True)
class InitializationReport:
    """How a scheme changed every weight of a model.

    Args:
        scheme: String. Name of the scheme or initializer.
        seed: Integer. `initialize(..., seed=report.seed)` repeats the draw.
        weights: Tuple of `WeightChange`, in the order of the layers.
        model: String. Name of the model.
        notes: Tuple of strings. Notes on the whole model.
        before, after: Reports on the model's signal; `None` where inputs could not be drawn.
    """

    scheme: str
    seed: int
    weights: tuple[WeightChange, ...]
    model: str = ""
    notes: tuple[str, ...] = ()
    before: SignalReport | None = field(default=None, repr=False, compare=False)
    after: SignalReport | None = field(default=None, repr=False, compare=False)

    @property
    def kernels(self) -> list[WeightChange]:
        """Changes of the kernels."""
        return [change for change in self.weights if change.role]

    @property
    def skipped(self) -> dict[str, str]:
        """Reasons why weights are unchanged, by `"layer/name"`."""
        return {f"{change.layer}/{change.name}": change.skipped for change in self.weights if change.skipped}

    @property
    def spread(self) -> float | None:
        """Largest `|log10 variance|` of the layers' pre-activations afterwards; `None` where none was measured."""
        variances = [change.forward_after for change in self.kernels if change.forward_after is not None]
        logs = [abs(math.log10(v)) if math.isfinite(v) and v > 0 else math.inf for v in variances]
        return max(logs, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data: scheme, seed, model, notes, and a dictionary for each weight."""
        weights = [asdict(change) for change in self.weights]
        for row in weights:
            row["shape"] = list(row["shape"])
            row["fans"] = None if row["fans"] is None else list(row["fans"])
        return {
            "scheme": self.scheme,
            "seed": self.seed,
            "model": self.model,
            "notes": list(self.notes),
            "weights": weights,
        }

    def plot(
        self, *, layers: Layers = None, statistic: str | None = None, ax: Axes | Sequence[Axes] | None = None
    ) -> Figure:
        """Draws the signal by depth before and after, as `before.plot(after)` does.

        Args:
            layers: String, compiled regular expression, or a list of them. Layers to draw: paths, names, patterns with
                `*`. `None` means all.
            statistic: String. Name of one of `STATISTICS` to draw by layer instead.
            ax: Matplotlib axes to draw into instead of a new figure: one for both directions, or a pair.

        Returns:
            A Matplotlib figure, which a notebook shows.

        Raises:
            ValueError: If nothing was measured, or as in `SignalReport.plot`.
        """
        if self.before is None or self.after is None:
            raise ValueError("plot: nothing was measured. Pass x, or x and y, to initialize().")
        return self.before.plot(self.after, layers=layers, statistic=statistic, ax=ax)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        yield _table(self, options.max_width)

    def __repr__(self) -> str:
        changed = sum(not change.skipped for change in self.kernels)
        spread = "" if self.spread is None else f", within {self.spread:.2g} decades"
        return (
            f"<{type(self).__name__} of {self.model}: {self.scheme!r} set {changed} of {len(self.kernels)} kernels, "
            f"seed {self.seed}{spread}>"
        )

    def __str__(self) -> str:
        return render_text(self, terminal_width())

    def _repr_html_(self) -> str:
        title, headings, rows = _cells(self)
        return view(heading(title), table(headings, rows, words=(0, 1, len(headings) - 1)), listing(_captions(self)))


def _table(report: InitializationReport, width: int) -> Table:
    """Returns a row for each kernel; below the table, what was left unchanged and why."""
    from rich.text import Text

    title, headings, rows = _cells(report)
    parts = [tuple(each.split("\n")) if "\n" in each else ("", each) for each in headings]
    ranks = (0, 9, 8, 7, 6, 4, *(3 for _ in headings[6:-1]), 5)
    grid = Grid(title, parts, [list(map(Cell, row)) for row in rows], (), ranks, True)  # type: ignore[arg-type]
    drawn = draw_grid(grid, width)
    drawn.caption = Text("\n".join(_captions(report)))
    return drawn


def _cells(report: InitializationReport) -> tuple[str, list[str], list[list[str]]]:
    """Returns the title, the headings and the cells of each kernel."""
    kernels = report.kernels
    changed = sum(not change.skipped for change in kernels)
    title = f"{report.model}: {report.scheme!r} set {changed} of {len(kernels)} kernels (seed {report.seed})"
    headings = ["fan\nin", "fan\nout", "scale", "sd\nbefore", "sd\nafter"]
    measured = [d for d in ("forward", "backward") if any(getattr(c, f"{d}_after") is not None for c in kernels)]
    for direction in measured:
        of = "var." if direction == "forward" else "grad."
        headings += [f"{of}\nbefore", f"{of}\nafter"]
    headings = ["kernel", "role", *headings, "note"]
    rows: list[list[str]] = []
    for change in _folded(kernels):
        if change is None:
            rows.append([f"... {len(kernels) - 2 * _ENDS} more", *[""] * (len(headings) - 1)])
            continue
        numbers = [change.scale, change.stddev_before, change.stddev_after]
        numbers += [getattr(change, f"{direction}_{when}") for direction in measured for when in ("before", "after")]
        about = [f"{change.layer}/{change.name}", change.role, *map(_count, change.fans or (None, None))]
        rows.append([*about, *map(short, numbers), "skipped" if change.skipped else change.note])
    return title, headings, rows


def _folded(kernels: Sequence[WeightChange]) -> list[WeightChange | None]:
    if len(kernels) <= 2 * _ENDS + 1:
        return list(kernels)
    return [*kernels[:_ENDS], None, *kernels[-_ENDS:]]


def _captions(report: InitializationReport) -> list[str]:
    """Returns the unchanged weights by reason, and the notes."""
    reasons: dict[str, list[str]] = {}
    for name, reason in report.skipped.items():
        reasons.setdefault(reason, []).append(name)
    lines = []
    for reason, names in sorted(reasons.items(), key=lambda item: item[0] == UNTOUCHED):
        more = f" and {len(names) - 6} more" * (len(names) > 6)
        lines.append(f"Unchanged, {reason}: {', '.join(names[:6])}{more}.")
    return [*lines, *report.notes]


def _count(fan: float | None) -> str:
    return "" if fan is None else f"{fan:g}"
