"""Statistics, table and lines of reports made by hand; nothing is measured."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from keras_initkit.report._flow import LayerFlow
from keras_initkit.report._health import mark_decades, signal_decades, signal_entries
from keras_initkit.report._layer_rows import Gap, fold, read_layer_rows
from keras_initkit.report._render_text import Quantity
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats
from keras_initkit.statistics._expected import Expected


def row(kind="output", layer="dense", call=0, name="", values=(-1.0, 1.0), **fields):
    return TensorStats(Tap(kind, layer, call, name), Moments.of(values), "Dense", (2, 1), **fields)


def with_sd(deviation, **fields):
    """A row of mean 0 and this standard deviation."""
    return row(values=(-deviation, deviation), **fields)


def stack(deviations, gradients=None, **fields):
    """A report of one layer after the other with these standard deviations."""
    gradients = [1.0] * len(deviations) if gradients is None else gradients
    rows = []
    for i, (output, gradient) in enumerate(zip(deviations, gradients, strict=True)):
        rows += [
            with_sd(output, layer=f"dense_{i}", **fields),
            with_sd(gradient, layer=f"dense_{i}", kind="output_gradient"),
        ]
    return SignalReport(tuple(rows))


# Statistics by layer


def test_calls_and_outputs_of_a_layer_are_merged():
    rng = np.random.default_rng(0)
    first, second, other = rng.normal(1, 2, 30), rng.normal(-3, 1, 50), rng.normal(0, 1, 20)
    report = SignalReport(
        (
            row(layer="shared", call=0, values=first),
            row(layer="other", call=0, name="0", values=other),
            row(layer="shared", call=1, values=second),
            row(layer="other", call=0, name="1", values=2 * other),
            row("input", layer="shared", values=100 * first),
        )
    )
    merged, both = np.concatenate([first, second]), np.concatenate([other, 2 * other])
    assert report.statistic("activation_mean") == pytest.approx({"shared": merged.mean(), "other": both.mean()})
    assert report.statistic("activation_variance") == pytest.approx({"shared": merged.var(), "other": both.var()})
    assert report.scalars()["activation_variance/shared"] == pytest.approx(merged.var())
    assert list(report.statistic("activation_mean")) == ["shared", "other"]


def weight(name, values, kind="weight", layer="layer"):
    values = np.asarray(values)
    return TensorStats(Tap(kind, layer, None, name), Moments.of(values), "Layer", values.shape)


def test_weights_stand_for_their_layer_by_the_kernels():
    kernel, recurrent = np.array([[1.0, 3.0]]), np.array([[10.0], [30.0]])
    report = SignalReport((weight("kernel", kernel), weight("bias", [0.0, 0.0]), weight("recurrent_kernel", recurrent)))
    assert report.statistic("weight_variance") == {"layer": pytest.approx(np.var([1, 3, 10, 30]))}


def test_a_layer_without_kernels_stands_by_what_it_trains():
    rows = [weight("gamma", [1.0, 3.0]), weight("beta", [0.0, 4.0]), weight("moving_mean", [100.0, 200.0])]
    assert SignalReport(tuple(rows)).statistic("weight_variance")["layer"] == pytest.approx(
        np.var([1, 3, 0, 4, 100, 200])
    )
    rows += [weight("gamma", [0.1, 0.2], "weight_gradient"), weight("beta", [0.3, 0.4], "weight_gradient")]
    report = SignalReport(tuple(rows))
    assert report.statistic("weight_variance")["layer"] == pytest.approx(np.var([1, 3, 0, 4]))
    assert report.statistic("weight_gradient_variance")["layer"] == pytest.approx(np.var([0.1, 0.2, 0.3, 0.4]))


def test_a_step_s_report_has_the_moments_as_they_are():
    moments = {Tap("output", "a"): Moments.of([1.0, 2.0]), Tap("weight", "a"): Moments.of([5.0, 9.0])}
    report = SignalReport.from_step(3, 1, [TensorStats(tap, of) for tap, of in moments.items()])
    assert report.moments == moments
    assert report.scalars() == {
        "activation_mean/a": 1.5,
        "activation_variance/a": 0.25,
        "weight_variance/a": 4.0,
        "nonfinite/a": 0.0,
    }
    assert "a" in str(report)
    assert "epoch 1, step 3" in str(report)


# Lines


def test_a_line_is_one_call_with_its_gradient():
    report = SignalReport(
        (
            row("pre_activation", layer="a"),
            row(layer="a"),
            row(layer="shared"),
            row(layer="shared", call=1),
            row(layer="b", name="0"),
            row(layer="b", name="1"),
            row("pre_activation_gradient", layer="a", values=(0.0, 2.0)),
            row("output_gradient", layer="shared", call=1, values=(0.0, 4.0)),
            row("weight", layer="a", call=None, name="kernel"),
            row("input", layer="c"),
        )
    )
    lines = read_layer_rows(report)
    assert [line.name for line in lines] == ["a", "shared (call 0)", "shared (call 1)", "b [0]", "b [1]"]
    assert lines[0].gradient.tap.kind == "pre_activation_gradient"  # there is no other
    assert lines[1].gradient is None
    assert lines[2].gradient.moments.stddev == 2
    assert lines[0].pre_activation is not None


def test_decades_are_those_of_the_variance_from_where_the_signal_enters():
    report = stack([2.0, 0.1, 5.0], [7.0, 1.0, 3.0])  # the last is taken for the output
    forward, backward = signal_decades(report)
    assert forward == pytest.approx({"dense_0": 0.0, "dense_1": math.log10(0.01 / 4)})
    assert backward == pytest.approx({"dense_0": math.log10(49 / 9), "dense_1": -math.log10(9), "dense_2": 0.0})
    assert signal_entries(report)[1]["dense_0"] == ("dense_2", 1.0)
    assert signal_decades(SignalReport(())) == ({}, {})


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_lost_or_not_finite_is_marked():
    forward, backward = signal_decades(stack([1.0, 0.0, math.nan, 1.0], [0.0, 1.0, math.inf, 1.0]))
    assert forward["dense_1"] == -math.inf
    assert math.isnan(forward["dense_2"])
    assert backward["dense_0"] == -math.inf
    assert math.isnan(backward["dense_2"])
    assert [mark_decades(each) for each in (None, -4.0, 4.0, -4.01, 4.01, -math.inf, math.nan)] == [
        *("", "", "", "outside", "outside", "alarm", "alarm")
    ]
    assert not any(signal_decades(stack([1.0, 1.0], [0.0, 0.0]))[1])  # no gradient enters


def test_a_kernel_of_zeros_keeps_the_gradient_from_those_before_it_on_purpose():
    gradients = stack([1.0, 1.0, 1.0], [0.0, 0.0, 1.0]).rows
    kernels = [weight("kernel", np.ones((1, 1)), layer=f"dense_{i}") for i in range(2)]
    last = [weight("kernel", np.full((1, 1), value), layer="dense_2") for value in (0.0, 1.0)]
    assert signal_decades(SignalReport((*gradients, *kernels, last[0])))[1] == {"dense_2": 0.0}
    assert signal_decades(SignalReport((*gradients, *kernels, last[1])))[1]["dense_0"] == -math.inf


def test_a_layer_is_judged_by_its_scale_and_by_what_comes_before_it():
    rows = stack([1.0, 0.5, 1.0, 1.0], [2.0, 1.0, 1.0, 1.0]).rows
    flow = (
        LayerFlow("dense_0", (), 1.0, 8.0),
        LayerFlow("dense_1", (), 4.0, 2.0),  # reads another input
        LayerFlow("dense_2", ("dense_0", "dense_1")),
        LayerFlow("dense_3", ("dense_1", "dense_2"), 1.0, 4.0),
    )
    report = SignalReport(rows, flow=flow)
    forward, backward = signal_entries(report)
    assert forward == {"dense_0": ("dense_0", 1.0), "dense_1": ("dense_1", 1.0), "dense_3": ("dense_0", 1.0)}
    assert backward == {"dense_0": ("dense_3", 2.0), "dense_1": ("dense_3", 0.5), "dense_3": ("dense_3", 1.0)}
    assert signal_decades(report)[1] == pytest.approx(
        {"dense_0": math.log10(8), "dense_1": -math.log10(2), "dense_3": 0}
    )


def test_a_signal_enters_anew_at_a_normalization_which_is_not_judged():
    rows = stack([100.0, 2.0, 0.1, 1.0]).rows
    flow = (
        LayerFlow("dense_0", (), 1.0),
        LayerFlow("dense_1", ("dense_0",), normalized_scale=4.0),
        LayerFlow("dense_2", ("dense_1",), 8.0),
    )
    report = SignalReport(rows, flow=flow)
    assert signal_entries(report)[0] == {"dense_0": ("dense_0", 1.0), "dense_2": ("dense_1", 2.0)}
    unmeasured = SignalReport((*rows[:2], *rows[3:]), flow=flow)
    assert signal_entries(unmeasured)[0] == {"dense_0": ("dense_0", 1.0), "dense_2": ("dense_0", 8.0)}
    assert signal_decades(report)[0] == pytest.approx({"dense_0": 0.0, "dense_2": math.log10(0.01 / 4 * 2)})


def test_healthy_layers_have_signal_and_units():
    assert stack([1.0, 0.011, 1.0]).healthy == {"dense_0": True, "dense_1": True, "dense_2": True}
    assert stack([1.0, 0.009, 1.0]).healthy == {"dense_0": True, "dense_1": False, "dense_2": True}
    assert stack([1.0, 1.0, 1.0], [0.009, 1.0, 1.0]).healthy == {"dense_0": False, "dense_1": True, "dense_2": True}
    for name, value, healthy in (
        ("dead_units", 0.5, True),
        ("dead_units", 0.75, False),
        ("saturated_units", 0.6, False),
    ):
        rows = [with_sd(1.0, layer="a", **{name: value}), with_sd(1.0, layer="head")]
        report = SignalReport(tuple(rows), flow=(LayerFlow("a", units=64, can_die=True, can_saturate=True),))
        assert report.healthy == {"a": healthy}


def test_an_embedding_is_not_where_the_signal_enters():
    rows = stack([0.01, 2.0, 3.0, 1.0]).rows
    rows = [replace(each, layer_type="Embedding") if each.tap.layer == "dense_0" else each for each in rows]
    forward, backward = signal_entries(SignalReport(tuple(rows)))
    assert {each.layer for each in forward.values()} == {"dense_1"}
    assert "dense_0" not in backward


def names_after(report):
    return [line.name for line in fold(read_layer_rows(report)) if not isinstance(line, Gap)]


def test_short_models_are_not_folded():
    report = stack([1.0] * 30)
    assert len(fold(read_layer_rows(report))) == 30


def test_long_models_keep_ends_and_lose_no_line():
    lines = read_layer_rows(stack([1.0] * 200))
    folded = fold(lines)
    assert len(folded) < 40
    assert folded[:5] == lines[:5]
    assert folded[-5:] == lines[-5:]
    flat = [inner for line in folded for inner in (line.rows if isinstance(line, Gap) else (line,))]
    assert flat == lines
    assert all(len(line.rows) > 1 for line in folded if isinstance(line, Gap))


def test_one_row_alone_is_no_gap():
    values = [1.0] * 200
    values[6] = 1e3  # the first five are kept
    assert "dense_5" in names_after(stack(values))


def test_a_gap_shows_its_smallest_and_largest_value_and_the_graver_mark():
    marks = {1.0: "", 2.0: "", 100.0: "outside", 0.0: "alarm"}
    quantity = Quantity(("", "sd"), lambda sd: sd, str, 1, lambda sd: marks.get(sd, "alarm"))
    assert quantity.range_cell([2.0, math.nan, 1.0]) == ("1.0\nnan", "alarm")
    assert quantity.range_cell([math.nan, 2.0, None, 1.0]) == ("1.0\nnan", "alarm")
    assert quantity.range_cell([2.0, 100.0, 1.0]) == ("1.0\n100.0", "outside")
    assert quantity.range_cell([2.0, 0.0]) == ("0.0\n2.0", "alarm")
    assert quantity.range_cell([None]) == ("", "")


@pytest.mark.parametrize("place", [7, 52, 101, 190])
@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1e-3, 1e3])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy, on the moments of infinities
def test_what_stands_out_is_not_folded_away(place, value, direction):
    values = [1.0] * 200
    values[place] = value
    report = stack(values) if direction == "forward" else stack([1.0] * 200, values)
    assert f"dense_{place}" in names_after(report)


def test_the_first_that_is_not_finite_is_kept():
    values = [1.0] * 53 + [math.nan] * 147
    assert "dense_53" in names_after(stack(values))
    assert "dense_146" in names_after(stack([1.0] * 200, values[::-1]))  # from the output back


@pytest.mark.parametrize("share", ["dead_units", "saturated_units"])
def test_dead_and_saturated_units_are_kept(share):
    report = stack([1.0] * 100)
    rows = list(report.rows)
    rows[2 * 33] = with_sd(1.0, layer="dense_33", **{share: 0.75})
    assert "dense_33" in names_after(SignalReport(tuple(rows)))


def test_the_farthest_from_its_prediction_is_kept():
    report = stack([1.0] * 100, predicted=Expected(0.0, 1.0))
    rows = list(report.rows)
    rows[2 * 33] = with_sd(1.0, layer="dense_33", predicted=Expected(0.0, 1.1))
    assert "dense_33" in names_after(SignalReport(tuple(rows)))


# The table


def test_table_numbers():
    report = SignalReport(
        (
            row("pre_activation", values=(-0.25, 0.75)),
            row(values=(1.0, 4.0), predicted=Expected(0.0, 2.25), dead_units=0.25, saturated_units=0.001),
            row("output_gradient", values=(-1e-12, 3e-12), predicted=Expected(0.0, 1e-24)),
        ),
        model="net",
        notes=("one note",),
    )
    title, first, second, _, line, note = str(report).splitlines()
    assert title == "Signal of net: 1 layer call"
    assert first.split() == ["output", "output", "theory", "pre-act", "grad.", "theory", "dead", "sat."]
    assert second.split() == ["layer", "type", "shape", "mean", *["sd"] * 5, "units", "units"]
    assert line.split() == [
        "dense",
        "Dense",
        "2x1",
        "2.50",
        "1.50",
        "1.50",
        "0.500",
        "2.0e-12",
        "1.0e-12",
        "25%",
        "<1%",
    ]
    assert note == "- one note"


def test_many_notes_are_cut():
    lines = str(SignalReport((row(),), notes=tuple(f"note {i}" for i in range(12)))).splitlines()
    assert lines[-12:] == [f"- note {i}" for i in range(12)]
    lines = str(SignalReport((row(),), notes=tuple(f"note {i}" for i in range(50)))).splitlines()
    assert lines[-12:] == [*(f"- note {i}" for i in range(11)), "- ... 39 more in the report's notes"]


def test_columns_without_values_are_left_out():
    text = str(SignalReport((row(),)))
    assert "theory" not in text
    assert "dead" not in text
    assert str(SignalReport(())).startswith("Signal: 0 layer calls")


NAMES = [
    "plain",
    "[red]markup[/red]",
    "[/]",
    "encoder/block_0/" + 100 * "x" + "/query",
    "Schicht_mit_Umlaut_äöü_層_β",
    "<b>&amp;",
    r"back\slash",
    "$x_1$ and :smile:",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_survives_in_100_columns(name):
    worst = {"values": (-1.2345e-300, 4e-300), "predicted": Expected(0.0, 1e-300)}
    share = {"dead_units": 0.999, "saturated_units": 1.0}
    rows = (row("pre_activation", name, **worst), row(layer=name, **worst, **share), row("output_gradient", name))
    rows = tuple(TensorStats(r.tap, r.moments, "GlobalAveragePooling2D", (64, 128, 128, 256)) for r in rows)
    text = str(SignalReport((*rows, row(layer="last")), model=name, notes=(name,)))
    assert max(cell_len(line) for line in text.splitlines()) <= 100
    width = next(line.index("type") for line in text.splitlines() if line.startswith("layer "))
    below = text[text.index("───") :].splitlines()[1:]
    if name.isascii():  # the other has a letter of two columns
        head, cut, tail = below[0][:width].strip().partition("…")  # a long one loses its middle
        assert bool(cut) == (len(name) > 40)
        assert (name.startswith(head) and name.endswith(tail)) if cut else head == name
    assert name in text.replace("\n", "")  # in the note
    assert "\x1b" not in text


@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_numbers_of_the_worst_report_are_whole():
    values = [1e-150, 1e150, math.nan, math.inf, 0.0] * 12
    text = str(stack(values, values, predicted=Expected(0.0, 1e-300), dead_units=1.0, saturated_units=0.999))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for shown in ("1.0e-150", "1.0e150", "nan", "100%", ">99%", " more, from"):
        assert shown in text


def test_a_gap_shows_the_range_that_it_hides():
    deviations = [1.0 + i / 1000 for i in range(200)]
    folded = fold(read_layer_rows(stack(deviations)))
    gap = next(line for line in folded if isinstance(line, Gap))
    inside = [line.output.moments.stddev for line in gap.rows]
    text = str(stack(deviations)).splitlines()
    at = next(i for i, line in enumerate(text) if line.startswith("..."))
    assert text[at].startswith(f"... {len(inside)} more, from")
    assert f"{min(inside):.2f}" in text[at]
    assert f"{max(inside):.2f}" in text[at + 1]


def test_everything_is_there_unfolded():
    table = stack([1.0] * 100).table(folded=False)
    assert table.row_count == 100


@pytest.mark.filterwarnings("ignore:invalid value")
def test_colour_is_for_terminals_alone():
    report = stack([1.0, 0.005, math.nan])
    assert "\x1b" not in str(report)
    console = Console(force_terminal=True, color_system="standard", width=100)
    with console.capture() as capture:
        console.print(report)
    styled = capture.get()
    assert re.search(r"\x1b\[1;31m *nan", styled)
    assert re.search(r"\x1b\[33m *5\.0e-3", styled)
    assert not re.search(r"\x1b\[33m *1\.00", styled)
