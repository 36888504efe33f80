"""The one way in which this package draws tables and turns them into text."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WIDTH = 100


class Column(NamedTuple):
    """A column of a table.

    Args:
        heading: String, with line breaks where it has several lines.
        justify: `"left"` or `"right"`.
        overflow: what becomes of text that does not fit: `"fold"` goes on in the next line, with words whole where
            they fit, `"ellipsis"` cuts it; `"keep"` is for text that must be given its room.
        min_width, max_width, width: Integers, or `None` where the text decides.
    """

    heading: str
    justify: Literal["left", "right"] = "left"
    overflow: Literal["keep", "fold", "ellipsis"] = "keep"
    min_width: int | None = None
    max_width: int | None = None
    width: int | None = None


def make_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str | Text]],
    title: str = "",
    caption: str = "",
    leading: int = 0,
) -> Table:
    """Returns a rich table with a rule under its headings and `leading` blank lines between rows. No text is markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title) if title else None,
        caption=Text(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
        caption_style="none",
        box=box.SIMPLE_HEAD,
        padding=0,  # the box itself keeps columns apart
        pad_edge=False,
        show_edge=False,
        leading=leading,
    )
    for column in columns:
        table.add_column(
            Text(column.heading),
            justify=column.justify,
            no_wrap=column.overflow != "fold",
            overflow="fold" if column.overflow == "fold" else "ellipsis",
            min_width=column.min_width,
            max_width=column.max_width,
            width=column.width,
        )
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def terminal_width() -> int:
    """Returns the columns of the terminal, or of the variable `COLUMNS`; 100 in a pipe."""
    return max(shutil.get_terminal_size((WIDTH, 24)).columns, 40)


def render_text(renderable: Any, width: int = WIDTH) -> str:
    """Returns what rich prints to a terminal of this width, without colors and trailing blanks."""
    from rich.console import Console

    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable, markup=False)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().split("\n"))
