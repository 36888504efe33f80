"""A report as a table: for a terminal and for a notebook."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from keras_initkit.report._layer_rows import (
    Gap,
    Line,
    fold,
    healthy_bands,
    lines_of,
    predicted_stddev,
    stddev,
)

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from keras_initkit.report._report import SignalReport

WIDTH, MOST_NOTES = 100, 12
ALARM, OUTSIDE = "alarm", "outside"  # 0 or not finite; outside the healthy band, or half the units lost
_MARKS = ("", OUTSIDE, ALARM)


class Cell(NamedTuple):
    """Text of a table's cell and how it reads: `""`, `ALARM` or `OUTSIDE`."""

    text: str
    mark: str = ""


class Column(NamedTuple):
    """A column of numbers: its heading on two lines, a line's value, how it is written and how it reads."""

    heading: tuple[str, str]
    value: Callable[[Line], float | None]
    text: Callable[[float | None], str]
    mark: Callable[[float], str] = lambda value: ""

    def cell(self, line: Line) -> Cell:
        """The cell of one line."""
        value = self.value(line)
        return Cell("" if value is None else self.text(value), "" if value is None else self.mark(value))

    def range_cell(self, lines: Sequence[Line]) -> Cell:
        """Least and largest value of several lines, below each other."""
        values = [value for line in lines if (value := self.value(line)) is not None]
        if not values:
            return Cell("")
        ordered = sorted(values, key=lambda value: (not math.isfinite(value), value))
        low, high = ordered[0], ordered[-1]
        return Cell(f"{self.text(low)}\n{self.text(high)}", max(map(self.mark, (low, high)), key=_MARKS.index))


class Grid(NamedTuple):
    """What a table shows, whatever it is drawn with.

    Args:
        title: what was measured.
        headings: of all columns, two lines each; the first three are the layer, its type and its output's shape.
        rows: the cells of each line. Lines that are left out have one row together, with the least and the
            largest value of each column.
        notes: to be read under it.
    """

    title: str
    headings: list[tuple[str, str]]
    rows: list[list[Cell]]
    notes: tuple[str, ...]


def grid_of(report: SignalReport, folded: bool = True) -> Grid:
    """The cells of a report's table; columns without any value are left out."""
    lines = lines_of(report)
    columns = [column for column in _columns(lines) if any(column.value(line) is not None for line in lines)]
    rows = []
    for line in fold(lines) if folded else lines:
        if isinstance(line, Gap):
            about = [f"... {len(line.lines)} more, from\n... to", "", ""]
            numbers = [column.range_cell(line.lines) for column in columns]
        else:
            about = [line.name, line.row.layer_type, "x".join(map(str, line.row.shape or ()))]
            numbers = [column.cell(line) for column in columns]
        rows.append([*map(Cell, about), *numbers])
    headings = [("", "layer"), ("", "type"), ("", "shape"), *(column.heading for column in columns)]
    notes = report.notes
    if len(notes) > MOST_NOTES:
        notes = (*notes[: MOST_NOTES - 1], f"... {len(notes) - MOST_NOTES + 1} more in the report's notes")
    return Grid(_title(report, len(lines)), headings, rows, notes)


def _title(report: SignalReport, lines: int) -> str:
    name = f"Signal of {report.model}" if report.model else "Signal"
    when = f", epoch {report.epoch}, step {report.step}" if report.step or report.epoch else ""
    return f"{name}: {lines} layer call{'s' * (lines != 1)}{when}"


def _columns(lines: Sequence[Line]) -> list[Column]:
    def signal(band: tuple[float, float] | None) -> Callable[[float], str]:
        def mark(value: float) -> str:
            if not math.isfinite(value) or value == 0:
                return ALARM
            return OUTSIDE * (band is not None and not band[0] <= value**2 <= band[1])

        return mark

    def share(name: str) -> Callable[[Line], float | None]:
        return lambda line: None if line.output is None else getattr(line.output, name)

    forward, backward = healthy_bands(lines)
    return [
        Column(("output", "mean"), lambda line: None if line.output is None else line.output.moments.mean, short),
        Column(("output", "sd"), lambda line: stddev(line.output), short, signal(forward)),
        Column(("theory", "sd"), lambda line: predicted_stddev(line.output), short),
        Column(("pre-act", "sd"), lambda line: stddev(line.pre_activation), short, signal(None)),
        Column(("grad.", "sd"), lambda line: stddev(line.gradient), short, signal(backward)),
        Column(("theory", "sd"), lambda line: predicted_stddev(line.gradient), short),
        Column(("dead", "units"), share("dead_units"), percent, lambda value: OUTSIDE * (value >= 0.5)),
        Column(("sat.", "units"), share("saturated_units"), percent, lambda value: OUTSIDE * (value >= 0.5)),
    ]


def rich_table(report: SignalReport, folded: bool = True) -> Table:
    """The table for a terminal of 100 columns. It is coloured where it is printed to one."""
    return _drawn(grid_of(report, folded))


def printable(report: SignalReport) -> Group:
    """The table between its title and the notes, which are free of its width."""
    from rich.console import Group
    from rich.text import Text

    grid = grid_of(report)
    table = _drawn(grid)
    table.title = None
    return Group(Text(grid.title), table, *(Text(f"- {note}") for note in grid.notes))


def _drawn(grid: Grid) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    widths = [max(len(part) for part in heading) for heading in grid.headings]
    for row in grid.rows:
        widths = [max(width, *map(len, cell.text.split("\n"))) for width, cell in zip(widths, row, strict=True)]
    spare = WIDTH - sum(widths[2:]) - (len(widths) - 1)
    widths[1] = min(widths[1], max(10, spare - widths[0]))
    widths[0] = min(widths[0], max(10, spare - widths[1]))
    table = Table(
        title=Text(grid.title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,  # the box itself keeps columns apart
        pad_edge=False,
        show_edge=False,
    )
    for i, heading in enumerate(grid.headings):
        text = Text("\n".join(heading))
        if i == 0:  # a long path goes on in the next line, a long type ends in an ellipsis
            table.add_column(text, overflow="fold", max_width=widths[0], min_width=min(widths[0], 12))
        elif i == 1:
            table.add_column(text, overflow="ellipsis", no_wrap=True, max_width=widths[1])
        else:
            table.add_column(text, justify="right", no_wrap=True)
    styles = {"": "", ALARM: "bold red", OUTSIDE: "yellow"}
    for row in grid.rows:
        table.add_row(*(Text(cell.text, styles[cell.mark]) for cell in row))
    return table


def short(value: float | None) -> str:
    """A number in seven places.

    >>> [short(value) for value in (1.0, -0.01234, 123.4, 1.234e-12, 0.0, float("nan"), None)]
    ['1.00', '-0.0123', '123', '1.2e-12', '0', 'nan', '']
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    if not math.isfinite(value) or 0.01 <= abs(value) < 999.5:
        return f"{value:#.3g}".removesuffix(".")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def percent(share: float | None) -> str:
    """A share in whole percent, where 0 and 100 % mean none and all.

    >>> [percent(share) for share in (0.0, 0.001, 0.25, 0.999, 1.0, None)]
    ['0%', '<1%', '25%', '>99%', '100%', '']
    """
    if share is None:
        return ""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"
