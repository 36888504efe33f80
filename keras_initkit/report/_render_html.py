"""A report for a notebook: one table, its sections and notes."""

from __future__ import annotations

from collections.abc import Sequence

from keras_initkit._html import heading, listing, table, view
from keras_initkit.report._data import ReportData
from keras_initkit.report._render_text import make_grid
from keras_initkit.report._table_layout import Grid


def render_html(report: ReportData, sections: Sequence[Grid] = ()) -> str:
    """Returns the table, other sections below it, and its notes."""
    grid = make_grid(report)
    return view(*map(_table, (grid, *sections)), listing(grid.notes))


def _table(grid: Grid) -> str:
    headings = ["\n".join(parts).strip() for parts in grid.headings]
    return heading(grid.title) + table(headings, grid.rows, words=(0, 1))
