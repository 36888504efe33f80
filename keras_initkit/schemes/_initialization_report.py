"""What `initialize` did: a table, a picture, a dictionary."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from keras_initkit.report._render_text import WIDTH, short
from keras_initkit.schemes._plan import UNTOUCHED, WeightChange

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

_ENDS = 20  # kernels that a folded table shows at each end


@dataclass(frozen=True)
class InitializationReport:
    """What became of every weight of a model.

    Args:
        scheme: its name.
        seed: that it was drawn with; `initialize(..., seed=report.seed)` draws the same again.
        weights: every weight of the model, in the order of its layers.
        model: name of the model.
        notes: what a reader has to know of the whole.
    """

    scheme: str
    seed: int
    weights: tuple[WeightChange, ...]
    model: str = ""
    notes: tuple[str, ...] = ()

    @property
    def kernels(self) -> list[WeightChange]:
        """Those that are kernels."""
        return [change for change in self.weights if change.role]

    @property
    def skipped(self) -> dict[str, str]:
        """Why weights were left as they were, by `"layer/name"`."""
        return {f"{change.layer}/{change.name}": change.skipped for change in self.weights if change.skipped}

    @property
    def spread(self) -> float | None:
        """Largest `|log10 variance|` of the layers' pre-activations afterwards; `None` where none was measured."""
        variances = [change.forward_after for change in self.kernels if change.forward_after is not None]
        logs = [abs(math.log10(v)) if math.isfinite(v) and v > 0 else math.inf for v in variances]
        return max(logs, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: scheme, seed, model, notes, and a dictionary for each weight."""
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

    def plot(self) -> Figure:
        """Variance of signal, and of gradient where there were labels, by layer, before and after.

        Raises:
            ValueError: if `initialize` had no data to measure on.
        """
        rows = {change.layer: change for change in self.kernels if change.forward_after is not None}
        if not rows:
            raise ValueError("plot: nothing was measured. Pass x, or x and y, to initialize().")
        from keras_initkit import plots

        def series(direction: str) -> dict[str, list[float | None]]:
            both = {
                when: [getattr(change, f"{direction}_{when}") for change in rows.values()]
                for when in ("before", "after")
            }
            return {when: values for when, values in both.items() if any(v is not None for v in values)}

        caption = f"{self.model}: variance before and after {self.scheme!r}"
        empty = [None] * len(rows)
        return plots.signal_by_depth(list(rows), empty, series("forward"), series("backward"), caption=caption)

    def __rich__(self) -> Table:
        return _table(self)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
        console.print(_table(self))
        return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _table(report: InitializationReport) -> Table:
    """A line for each kernel, in 100 columns; under it what was left as it was, and why."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    kernels = report.kernels
    changed = sum(not change.skipped for change in kernels)
    title = f"{report.model}: {report.scheme!r} set {changed} of {len(kernels)} kernels (seed {report.seed})"
    table = Table(
        title=Text(title),
        caption=Text("\n".join(_captions(report))),
        title_justify="left",
        caption_justify="left",
        caption_style="none",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    headings = ["kernel", "role", "fan\nin", "fan\nout", "scale", "sd\nbefore", "\nafter"]
    measured = [d for d in ("forward", "backward") if any(getattr(c, f"{d}_after") is not None for c in kernels)]
    for direction in measured:
        headings += [f"{direction.removesuffix('ward')}.\nbefore", "var.\nafter"]
    for i, heading in enumerate([*headings, "note"]):
        if i in (0, len(headings)):
            table.add_column(heading, overflow="fold", ratio=None, min_width=12)
        else:
            table.add_column(heading, justify="left" if i == 1 else "right", no_wrap=True)
    for change in _folded(kernels):
        if change is None:
            table.add_row(f"... {len(kernels) - 2 * _ENDS} more")
            continue
        cells = [f"{change.layer}/{change.name}", change.role, *(_count(fan) for fan in change.fans or (None, None))]
        cells += [short(change.scale), short(change.stddev_before), short(change.stddev_after)]
        for direction in measured:
            cells += [short(getattr(change, f"{direction}_{when}")) for when in ("before", "after")]
        table.add_row(*map(Text, cells), Text("skipped" if change.skipped else change.note))
    return table


def _folded(kernels: Sequence[WeightChange]) -> list[WeightChange | None]:
    if len(kernels) <= 2 * _ENDS + 1:
        return list(kernels)
    return [*kernels[:_ENDS], None, *kernels[-_ENDS:]]


def _captions(report: InitializationReport) -> list[str]:
    """What was left as it was, by reason, and the notes."""
    reasons: dict[str, list[str]] = {}
    for name, reason in report.skipped.items():
        reasons.setdefault(reason, []).append(name)
    lines = []
    for reason, names in sorted(reasons.items(), key=lambda item: item[0] == UNTOUCHED):
        more = f" and {len(names) - 6} more" * (len(names) > 6)
        lines.append(f"Left as it was, {reason}: {', '.join(names[:6])}{more}.")
    return [*lines, *report.notes]


def _count(fan: float | None) -> str:
    return "" if fan is None else f"{fan:g}"
