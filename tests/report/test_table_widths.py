"""The table in terminals of several widths: numbers are whole, less important columns go first, signs beside color."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from keras_initkit.report._table_layout import Cell, Grid, draw_grid, shorten
from keras_initkit.report._tables import render_text
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats
from keras_initkit.statistics._expected import Expected


def report():
    rows = []
    for i in range(6):
        name = f"encoder/stage_{i}/bottleneck/convolution"
        deviation = 1.3456e-3 if i in (2, 3) else 0.123456
        for kind in ("pre_activation", "output", "output_gradient"):
            moments = Moments.of((-deviation, deviation) if kind == "output" else (-1.0, 1.0))
            fields = {"predicted": Expected(0.0, 0.5), "dead_units": 0.25} if kind == "output" else {}
            rows.append(TensorStats(Tap(kind, name, 0), moments, "DepthwiseConv2D", (64, 32, 32, 128), **fields))
    return SignalReport(tuple(rows), model="net")


def shown(width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(report())
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_numbers_are_whole_at_every_width(width):
    lines = shown(width)
    assert max(map(cell_len, lines)) <= width
    whole = {word for line in shown(300) for word in line.split()}
    body = [line for line in lines if line.startswith("enc")]
    assert len(body) == 6
    assert {word for line in body for word in line.split()[1:] if word[0].isdigit()} <= whole


def test_less_important_columns_go_first():
    headings = {width: " ".join(shown(width)[1:3]) for width in (40, 80, 120, 300)}
    assert all(name in headings[300] for name in ("mean", "pre-act", "theory", "shape", "type", "grad.", "dead"))
    assert "type" not in headings[80]
    assert "pre-act" not in headings[80]
    assert "output" in headings[40]
    assert "pre-act" not in headings[40]


def test_signs_say_without_color_what_is_outside():
    report_ = report()
    assert [layer for layer, healthy in report_.healthy.items() if not healthy] == []
    rows = [row for row in report_.rows if "stage_3" not in row.tap.layer or row.tap.kind != "output"]
    small = TensorStats(Tap("output", "encoder/stage_3/bottleneck/convolution", 0), Moments.of((-1e-4, 1e-4)), "Conv2D")
    lost = TensorStats(Tap("output", "encoder/stage_2/bottleneck/convolution", 0), Moments.of((0.5, 0.5)), "Conv2D")
    rows = [lost if row.tap == lost.tap else row for row in rows] + [small]
    text = render_text(SignalReport(tuple(rows)), 60)
    assert "1.0e-4!" in text
    assert "0!!" in text
    assert "- ! outside of what is healthy, !! lost or not finite" in text
    assert "!" not in render_text(report_, 60)


def test_what_is_marked_stays():
    headings = [("", "layer"), ("a", "x"), ("b", "x"), ("c", "x")]
    grid = Grid("", headings, [[Cell("l"), Cell("111"), Cell("222", "outside"), Cell("333")]])
    assert [cell.split() for cell in render_text(draw_grid(grid, 11), 11).splitlines()][-1] == ["l", "222!"]


def test_names_lose_their_middle():
    assert [shorten("abcdefghij", width) for width in (10, 9, 4, 1)] == ["abcdefghij", "abcd…ghij", "ab…j", "…"]
    assert cell_len(shorten("層" * 20, 11)) <= 11
