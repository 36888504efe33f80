"""A report as a table, for a terminal and for a notebook."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from keras_initkit.report._data import ReportData, title
from keras_initkit.report._health import MARKS, Mark, mark_decades, signal_decades
from keras_initkit.report._layer_rows import Gap, LayerRow, fold, read_layer_rows
from keras_initkit.report._rows import TensorStats
from keras_initkit.report._table_layout import LEGEND, Cell, Grid, draw_grid
from keras_initkit.report._tables import WIDTH
from keras_initkit.report._unit_health import dead_layers, saturated_layers

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

MOST_NOTES = 12


class Quantity(NamedTuple):
    """A column of numbers: its heading on two lines, a row's value, its text, the column's rank, a row's health."""

    heading: tuple[str, str]
    value: Callable[[LayerRow], float | None]
    text: Callable[[float | None], str]
    rank: int
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
    ranks = (0, 9, 8, *(each.rank for each in quantities))
    grid = Grid(title(report.model, about_all, report), headings, cells, notes, ranks)
    return grid._replace(notes=(LEGEND, *notes)) if grid.has_marks else grid


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

    def lost(heading: str, name: str, layers: Mapping[str, bool], rank: int) -> Quantity:
        fraction = value("output", lambda stats: getattr(stats, name))
        return Quantity(
            (heading, "units"), fraction, percent, rank, lambda row: "outside" if layers.get(row.main.tap.layer) else ""
        )

    forward, backward = signal_decades(report)
    return [
        Quantity(("output", "mean"), value("output", lambda stats: stats.moments.mean), short, 7),
        Quantity(("output", "sd"), stddev("output"), short, 1, signal("output", forward)),
        Quantity(("theory", "sd"), predicted("output"), short, 5),
        Quantity(("pre-act", "sd"), stddev("pre_activation"), short, 10, signal("pre_activation", {})),
        Quantity(("grad.", "sd"), stddev("gradient"), short, 2, signal("gradient", backward)),
        Quantity(("theory", "sd"), predicted("gradient"), short, 6),
        lost("dead", "dead_units", dead_layers(report), 3),
        lost("sat.", "saturated_units", saturated_layers(report), 4),
    ]


def draw_table(report: ReportData, folded: bool = True, width: int = WIDTH, with_title: bool = True) -> Table:
    """Returns the table for a terminal of some width. It is colored where it is printed to one."""
    return draw_grid(make_grid(report, folded), width, with_title)


def render_rich(report: ReportData, sections: Sequence[Grid] = (), width: int = WIDTH) -> Group:
    """Returns the table between its title and the notes, whose width it does not limit; other sections below it."""
    from rich.console import Group
    from rich.text import Text

    grid = make_grid(report)
    below = [part for each in sections for part in (Text(f"\n{each.title}"), draw_grid(each, width, with_title=False))]
    notes = [Text(f"- {note}") for note in grid.notes]
    return Group(Text(grid.title), draw_grid(grid, width, with_title=False), *below, *notes)


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
