"""The sections of a report's table about attention and residual sums."""

from __future__ import annotations

import math

from keras_initkit.report._attention_rows import AttentionStats
from keras_initkit.report._data import ReportData
from keras_initkit.report._render_text import percent, short
from keras_initkit.report._table_layout import Cell, Grid
from keras_initkit.theory._thresholds import COLLAPSED_ENTROPY

MOST_ROWS = 12


def make_sections(report: ReportData) -> list[Grid]:
    """Returns the cells of each section that has rows; the middle of long ones is left out."""
    sections = []
    if report.attention:
        sections.append(
            _section("Attention, over heads from the least to the largest", _attention_columns(report.attention))
        )
    if report.residuals:
        rows = [
            [Cell(row.layer), Cell(row.branch), Cell(short(row.cosine)), Cell(short(row.ratio))]
            for row in report.residuals
        ]
        headings = [("residual", "sum"), ("", "branch"), ("cosine", "to stream"), ("size to", "stream's")]
        sections.append(_section("Residual branches", [headings, *rows]))
    return sections


def _attention_columns(rows: tuple[AttentionStats, ...]) -> list[list]:
    """Returns the headings, then the cells of each attention."""
    several = any(row.call for row in rows)
    headings = [("", "attention"), ("", "keys"), ("entropy", "nats"), ("even", "nats"), ("largest", "logit")]
    headings += [("future", "weight"), ("padding", "weight")]
    cells = []
    for row in rows:
        mark = "alarm" if row.relative_entropy < COLLAPSED_ENTROPY else ""
        cells.append(
            [
                Cell(row.layer + f" (call {row.call})" * several),
                Cell(str(row.keys)),
                Cell(_range(row.entropy), mark),  # type: ignore[arg-type]
                Cell(short(row.uniform_entropy)),
                Cell(_range(row.largest_logit)),
                Cell(percent(row.future)),
                Cell(percent(row.padding)),
            ]
        )
    kept = [place for place in range(len(headings)) if any(row[place].text for row in cells)]
    return [[headings[place] for place in kept], *([row[place] for place in kept] for row in cells)]


def _section(title: str, table: list[list]) -> Grid:
    headings, *rows = table
    if len(rows) > MOST_ROWS:
        half = MOST_ROWS // 2
        gap = [Cell(f"... {len(rows) - 2 * half} more"), *(Cell("") for _ in headings[1:])]
        rows = [*rows[:half], gap, *rows[-half:]]
    return Grid(title, headings, rows)


def _range(values: tuple[float, ...]) -> str:
    """Writes the least and the largest of several numbers, once where they read the same."""
    finite = sorted(values, key=lambda value: (not math.isfinite(value), value))
    low, high = short(finite[0]), short(finite[-1])
    return low if low == high else f"{low}..{high}"
