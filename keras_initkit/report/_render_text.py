"""A report as a table, for a terminal and for a notebook."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from keras_initkit.report._data import ReportData, title
from keras_initkit.report._health import MARKS, Mark, mark_decades, signal_decades
from keras_initkit.report._layer_rows import Gap, LayerRow, fold, read_layer_rows
from keras_initkit.report._rows import TensorStats
from keras_initkit.report._tables import WIDTH, Column, make_table
from keras_initkit.report._unit_health import dead_layers, saturated_layers

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

MOST_NOTES = 12
_STYLES: dict[Mark, str] = {"": "", "outside": "yellow", "alarm": "bold red"}


class Cell(NamedTuple):
    """Text of a cell, and whether it is healthy."""

    text: str
    mark: Mark = ""


class Quantity(NamedTuple):
    """A column of numbers: its heading on two lines, a row's value, how it is written and whether it is healthy."""

    heading: tuple[str, str]
    value: Callable[[LayerRow], float | None]
    text: Callable[[float | None], str]
    mark: Callable[[LayerRow], Mark] = lambda row: ""

    def cell(self, row: LayerRow) -> Cell:
        """Returns the cell of one row."""
        value = self.value(row)
        return Cell("") if value is None else Cell(self.text(value), self.mark(row))

    def range_cell(self, rows: Sequence[LayerRow]) -> Cell:
        """Returns the smallest and the largest value of several rows, below each other."""
        measured = [row for row in rows if self.value(row) is not None]
        if not measured:
            return Cell("")
        values = [value for row in measured if (value := self.value(row)) is not None]
        ordered = sorted(values, key=lambda value: (not math.isfinite(value), value))
        marks = map(self.mark, measured)
        return Cell(f"{self.text(ordered[0])}\n{self.text(ordered[-1])}", max(marks, key=MARKS.index))


class Grid(NamedTuple):
    """What a table shows, whatever it is drawn with.

    `headings` has two lines for each column; the first three are the layer, its type and its output's shape. Rows that
    are left out have one row together, with the smallest and the largest value of each column.
    """

    title: str
    headings: list[tuple[str, str]]
    rows: list[list[Cell]]
    notes: tuple[str, ...]


def make_grid(report: ReportData, folded: bool = True) -> Grid:
    """Returns the cells of a report's table, without the columns that have no value."""
    layers = read_layer_rows(report)
    quantities = [each for each in _quantities(report) if any(each.value(row) is not None for row in layers)]
    cells = []
    for row in fold(layers) if folded else layers:
        if isinstance(row, Gap):
            about = [f"... {len(row.rows)} more, from\n... to", "", ""]
            numbers = [each.range_cell(row.rows) for each in quantities]
        else:
            about = [row.name, row.main.layer_type, "x".join(map(str, row.main.shape or ()))]
            numbers = [each.cell(row) for each in quantities]
        cells.append([*map(Cell, about), *numbers])
    headings = [("", "layer"), ("", "type"), ("", "shape"), *(each.heading for each in quantities)]
    notes = report.notes
    if len(notes) > MOST_NOTES:
        notes = (*notes[: MOST_NOTES - 1], f"... {len(notes) - MOST_NOTES + 1} more in the report's notes")
    about_all = f": {len(layers)} layer call{'s' * (len(layers) != 1)}"
    return Grid(title(report.model, about_all, report), headings, cells, notes)


def _quantities(report: ReportData) -> list[Quantity]:
    def value(tensor: str, read: Callable[[TensorStats], float | None]) -> Callable[[LayerRow], float | None]:
        return lambda row: None if (stats := getattr(row, tensor)) is None else read(stats)

    def stddev(tensor: str) -> Callable[[LayerRow], float | None]:
        return value(tensor, lambda stats: stats.moments.stddev)

    def predicted(tensor: str) -> Callable[[LayerRow], float | None]:
        return value(tensor, lambda stats: stats.predicted_stddev)

    def signal(tensor: str, decades: Mapping[str, float]) -> Callable[[LayerRow], Mark]:
        def mark(row: LayerRow) -> Mark:
            stats = getattr(row, tensor)
            return "alarm" if stats.moments.nonfinite else mark_decades(decades.get(stats.tap.layer))

        return mark

    def lost(heading: str, name: str, layers: Mapping[str, bool]) -> Quantity:
        fraction = value("output", lambda stats: getattr(stats, name))
        return Quantity(
            (heading, "units"), fraction, percent, lambda row: "outside" if layers.get(row.main.tap.layer) else ""
        )

    forward, backward = signal_decades(report)
    return [
        Quantity(("output", "mean"), value("output", lambda stats: stats.moments.mean), short),
        Quantity(("output", "sd"), stddev("output"), short, signal("output", forward)),
        Quantity(("theory", "sd"), predicted("output"), short),
        Quantity(("pre-act", "sd"), stddev("pre_activation"), short, signal("pre_activation", {})),
        Quantity(("grad.", "sd"), stddev("gradient"), short, signal("gradient", backward)),
        Quantity(("theory", "sd"), predicted("gradient"), short),
        lost("dead", "dead_units", dead_layers(report)),
        lost("sat.", "saturated_units", saturated_layers(report)),
    ]


def draw_table(report: ReportData, folded: bool = True, with_title: bool = True) -> Table:
    """Returns the table for a terminal of 100 columns. It is colored where it is printed to one."""
    return _draw(make_grid(report, folded), with_title)


def _draw(grid: Grid, with_title: bool) -> Table:
    from rich.text import Text

    widths = [max(len(part) for part in heading) for heading in grid.headings]
    for row in grid.rows:
        widths = [max(width, *map(len, cell.text.split("\n"))) for width, cell in zip(widths, row, strict=True)]
    spare = WIDTH - sum(widths[2:]) - (len(widths) - 1)
    widths[1] = min(widths[1], max(10, spare - widths[0]))
    widths[0] = min(widths[0], max(10, spare - widths[1]))
    name, layer_type, *numbers = ("\n".join(heading) for heading in grid.headings)
    columns = [
        # A long path goes on in the next line, a long type ends in an ellipsis.
        Column(name, overflow="fold", max_width=widths[0], min_width=min(widths[0], 12)),
        Column(layer_type, overflow="ellipsis", max_width=widths[1]),
        *(Column(heading, "right") for heading in numbers),
    ]
    rows = ([Text(cell.text, _STYLES[cell.mark]) for cell in row] for row in grid.rows)
    return make_table(columns, rows, grid.title if with_title else "")


def render_rich(report: ReportData, sections: Sequence[Grid] = ()) -> Group:
    """Returns the table between its title and the notes, whose width it does not limit; other sections below it."""
    from rich.console import Group
    from rich.text import Text

    grid = make_grid(report)
    below = [part for each in sections for part in (Text(f"\n{each.title}"), _draw(each, with_title=False))]
    notes = [Text(f"- {note}") for note in grid.notes]
    return Group(Text(grid.title), draw_table(report, with_title=False), *below, *notes)


def short(value: float | None) -> str:
    """Writes a number in at most seven characters.

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


def percent(fraction: float | None) -> str:
    """Writes a fraction in whole percent, where 0 and 100 % mean none and all.

    >>> [percent(fraction) for fraction in (0.0, 0.001, 0.25, 0.999, 1.0, None)]
    ['0%', '<1%', '25%', '>99%', '100%', '']
    """
    if fraction is None:
        return ""
    if 0 < fraction < 0.01:
        return "<1%"
    return ">99%" if 0.99 < fraction < 1 else f"{fraction:.0%}"
