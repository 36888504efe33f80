"""Small views for notebooks: tables and lists whose colors follow a light or dark page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

_LIGHT, _DARK = "--ik-outside:#8a5300;--ik-alarm:#b3261e", "--ik-outside:#ffb95c;--ik-alarm:#ff9a91"
# Notebooks say by these whether they are light or dark, whatever the system is: JupyterLab, VS Code, Colab and Sphinx.
_IS_LIGHT = "body[data-jp-theme-light=true],body.vscode-light,html[data-theme=light],html[theme=light]"
_IS_DARK = "body[data-jp-theme-light=false],body.vscode-dark,html[data-theme=dark],html[theme=dark]"
_STYLE = (
    f".ik-view{{{_LIGHT};--ik-line:rgba(128,128,128,.35);font-size:90%;overflow-x:auto;color:inherit}}"
    f"@media(prefers-color-scheme:dark){{.ik-view{{{_DARK}}}}}"
    f":is({_IS_LIGHT}) .ik-view{{{_LIGHT}}}:is({_IS_DARK}) .ik-view{{{_DARK}}}"
    ".ik-view table{border-collapse:collapse;font-variant-numeric:tabular-nums;background:none;color:inherit}"
    ".ik-view tr{background:none!important}"
    ".ik-view :is(th,td){padding:2px 6px;border-bottom:1px solid var(--ik-line);vertical-align:bottom;"
    "text-align:right;white-space:nowrap;background:none;color:inherit}"
    ".ik-view :is(th,td).ik-word{text-align:left}"
    ".ik-view td:first-child{overflow-wrap:anywhere;min-width:8em;white-space:normal}"
    ".ik-view td.ik-note{white-space:normal}"
    ".ik-view .ik-outside{color:var(--ik-outside)}.ik-view .ik-alarm{color:var(--ik-alarm);font-weight:bold}"
    ".ik-view ul{padding-left:1.5em;margin:.4em 0}.ik-view p{margin:.4em 0}"
)
_SIGNS = {"": "", "outside": "! ", "alarm": "!! "}  # before, so that digits stay below each other
Cell = str | tuple[str, str]


def view(*parts: str) -> str:
    """Returns the HTML of one result, with its style."""
    return f'<div class="ik-view"><style>{_STYLE}</style>{"".join(parts)}</div>'


def heading(text: str) -> str:
    """Returns a line in bold."""
    return f"<p><b>{escape(text)}</b></p>"


def prose(text: str) -> str:
    """Returns text with what stands in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def table(headings: Sequence[str], rows: Iterable[Sequence[Cell]], words: Iterable[int] = (0,)) -> str:
    """Returns a table; no text is markup.

    Args:
        headings: Strings, with line breaks where they have several lines.
        rows: Sequences of cells: a string, or a pair of it and its mark, `"outside"` or `"alarm"`.
        words: Places of the columns that hold words, which stand to the left.
    """
    left = set(words)

    def cells(tag: str, row: Sequence[Cell]) -> str:
        out = []
        for place, cell in enumerate(row):
            text, mark = (cell, "") if isinstance(cell, str) else cell
            names = " ".join(["ik-word"] * (place in left) + [f"ik-{mark}"] * bool(mark))
            content = "<br>".join(_SIGNS[mark] * bool(line) + escape(line) for line in text.split("\n"))
            out.append(f'<{tag} class="{names}">{content}</{tag}>' if names else f"<{tag}>{content}</{tag}>")
        return f"<tr>{''.join(out)}</tr>"

    body = "\n".join(cells("td", row) for row in rows)
    return f"<table><thead>{cells('th', headings)}</thead><tbody>\n{body}\n</tbody></table>"


def listing(texts: Iterable[str]) -> str:
    """Returns a list of texts, or nothing."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def fold(rows: Sequence, most: int = 40) -> tuple[Sequence, int, Sequence]:
    """Returns the first rows, how many are left out in the middle, and the last ones."""
    half = most // 2
    return (rows, 0, ()) if len(rows) <= most + 1 else (rows[:half], len(rows) - 2 * half, rows[-half:])
