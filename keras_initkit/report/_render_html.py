"""A report for a notebook: one HTML table with inline styles, which reads in a light and in a dark theme."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from keras_initkit.report._data import ReportData
from keras_initkit.report._render_figures import draw_report
from keras_initkit.report._render_text import Grid, make_grid

# Half-transparent grays and colors of middle lightness can be read on white and on black.
_LINE = "border-bottom:1px solid rgba(128,128,128,.35)"
_MARKS = {"": "", "alarm": ";color:#e5484d;font-weight:bold", "outside": ";color:#c77700"}


def render_html(report: ReportData, sections: Sequence[Grid] = ()) -> str:
    """Returns the table, other sections below it, its notes, and the figure, which opens at a click."""
    grid = make_grid(report)
    notes = "".join(f"<li>{escape(note)}</li>" for note in grid.notes)
    return (
        '<div style="font-size:90%;overflow-x:auto">'
        + "".join(map(_table, (grid, *sections)))
        + (f'<ul style="padding-left:1.5em">{notes}</ul>' if notes else "")
        + _figure(report)
        + "</div>"
    )


def _table(grid: Grid) -> str:
    def cells(tag: str, texts: list[tuple[str, str]]) -> str:
        out = []
        for i, (text, mark) in enumerate(texts):
            style = f"text-align:{'left' if i < 2 else 'right'};vertical-align:bottom;padding:2px 6px;{_LINE}"
            wrap = "overflow-wrap:anywhere;min-width:8em" if i == 0 else "white-space:nowrap"
            content = "<br>".join(map(escape, text.split("\n")))
            out.append(f'<{tag} style="{style};{wrap}{_MARKS[mark]}">{content}</{tag}>')
        return "<tr>" + "".join(out) + "</tr>"

    heading = cells("th", [("\n".join(parts).strip(), "") for parts in grid.headings])
    body = "\n".join(cells("td", [(cell.text, cell.mark) for cell in row]) for row in grid.rows)
    return (
        f"<p><b>{escape(grid.title)}</b></p>"
        '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums;background:none;color:inherit">'
        f"<thead>{heading}</thead><tbody>\n{body}\n</tbody></table>"
    )


def _figure(report: ReportData) -> str:
    if not report.rows:
        return ""
    buffer = io.BytesIO()
    draw_report(report).savefig(buffer, format="png", dpi=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img alt="signal by depth" style="max-width:100%" src="data:image/png;base64,{data}">'
    return f"<details><summary>picture</summary>{image}</details>"
