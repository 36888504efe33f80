"""How a grid of cells is fitted into the width that a terminal has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from keras_initkit.report._health import Mark
from keras_initkit.report._tables import Column, make_table

if TYPE_CHECKING:
    from rich.table import Table

_STYLES: dict[Mark, str] = {"": "", "outside": "yellow", "alarm": "bold red"}
SIGNS: dict[Mark, str] = {"": "", "outside": "!", "alarm": "!!"}  # for readers without color
LEGEND = f"{SIGNS['outside']} outside of what is healthy, {SIGNS['alarm']} lost or not finite: diagnose() says why."
_LEAST_NAME, _LEAST_TYPE, _LEAST_NOTE = 24, 10, 12


class Cell(NamedTuple):
    """Text of a cell, and whether it is healthy."""

    text: str
    mark: Mark = ""


class Grid(NamedTuple):
    """What a table shows, whatever it is drawn with.

    `headings` has two lines for each column; the first two hold words, which may be shortened. `ranks` says which
    columns go where there is no room for all: the highest first, but what is marked and the first column last. With
    `folds_last` the last column holds text, which goes on in the next line.
    """

    title: str
    headings: list[tuple[str, str]]
    rows: list[list[Cell]]
    notes: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    folds_last: bool = False

    @property
    def has_marks(self) -> bool:
        """Whether any cell is marked."""
        return any(cell.mark for row in self.rows for cell in row)


def draw_grid(grid: Grid, width: int, with_title: bool = True) -> Table:
    """Returns the table in at most `width` columns: every number is whole, less important columns are left out."""
    from rich.cells import cell_len
    from rich.text import Text

    columns = [_signed([row[place] for row in grid.rows]) for place in range(len(grid.headings))]
    widths = [
        max(max(map(len, heading)), *(cell_len(line) for text in texts for line in text.split("\n")), 0)
        for heading, texts in zip(grid.headings, columns, strict=True)
    ]
    kept = _fitting(grid, widths, width)
    spare = width - sum(widths[place] for place in kept if place > 1) - (len(kept) - 1)
    last = len(widths) - 1 if grid.folds_last else -1
    if last in kept:
        spare += widths[last]
        widths[last] = min(widths[last], max(_LEAST_NOTE, spare - sum(widths[:2])))
        spare -= widths[last]
    if 1 in kept:
        room = min(widths[1], max(_LEAST_TYPE, spare - widths[0]))
        columns[1] = [shorten(text, room) for text in columns[1]]
        spare -= room
    columns[0] = ["\n".join(shorten(line, max(spare, 1)) for line in text.split("\n")) for text in columns[0]]
    form = [
        Column("\n".join(grid.headings[place]), overflow="fold", max_width=widths[place])
        if place == last
        else Column("\n".join(grid.headings[place]), "left" if place < 2 else "right")
        for place in kept
    ]
    rows = [[Text(columns[place][i], _STYLES[row[place].mark]) for place in kept] for i, row in enumerate(grid.rows)]
    return make_table(form, rows, grid.title if with_title else "")


def shorten(name: str, width: int) -> str:
    """Takes away the middle of a name that does not fit.

    >>> shorten("encoder/block_7/dense", 13)
    'encode…/dense'
    """
    from rich.cells import cell_len  # an ideograph takes two columns

    if cell_len(name) <= width:
        return name
    head, tail = width // 2, (width - 1) // 2
    while head + tail and cell_len(name[:head] + name[len(name) - tail :]) > width - 1:
        head, tail = (head - 1, tail) if head > tail else (head, tail - 1)
    return f"{name[:head]}…{name[len(name) - tail :]}"


def _signed(cells: Sequence[Cell]) -> list[str]:
    """Writes a sign behind what is marked; numbers of one column stay below each other."""
    room = max((len(SIGNS[cell.mark]) for cell in cells), default=0)
    return [
        "\n".join(line + SIGNS[cell.mark].ljust(room) for line in cell.text.split("\n")) if cell.text else ""
        for cell in cells
    ]


def _fitting(grid: Grid, widths: Sequence[int], width: int) -> list[int]:
    """Returns the places of the columns for which there is room."""
    least = [min(widths[0], _LEAST_NAME), *(min(each, _LEAST_TYPE) for each in widths[1:2]), *widths[2:]]
    least[-1] = min(least[-1], _LEAST_NOTE) if grid.folds_last else least[-1]
    ranks = grid.ranks or tuple(range(len(widths)))
    marked = [any(row[place].mark for row in grid.rows) for place in range(len(widths))]
    kept = list(range(len(widths)))
    while len(kept) > 1 and sum(least[place] for place in kept) + len(kept) - 1 > width:
        kept.remove(max(kept[1:], key=lambda place: (not marked[place], ranks[place])))
    return kept
