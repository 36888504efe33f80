"""Statistics by name, against hand-made rows."""

import math

import numpy as np
import pytest

from keras_initkit.report._scalars import DEFAULT_STATISTICS, STATISTICS, check_statistics, needed_kinds
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats

RNG = np.random.default_rng(0)


def row(kind, layer="a", values=None, call=None, **fields):
    return TensorStats(
        Tap(kind, layer, call), Moments.of(RNG.standard_normal(50) if values is None else values), **fields
    )


def test_update_ratio():
    weight, update = RNG.standard_normal(100), 1e-3 * RNG.standard_normal(100)
    report = SignalReport((row("weight", values=weight), row("weight_update", values=update)))
    assert report.statistic("update_ratio")["a"] == pytest.approx(np.std(update) / np.std(weight), rel=1e-12)


@pytest.mark.parametrize("update", [[0.0, 0.0], [0.1, 0.2]])
def test_equal_weights_have_no_update_ratio(update):
    report = SignalReport((row("weight", values=[1.0, 1.0]), row("weight_update", values=update)))
    assert report.statistic("update_ratio") == {}
    assert "update_ratio/a" not in report.scalars()


def test_an_update_that_is_not_finite_shows_in_the_ratio():
    report = SignalReport((row("weight"), row("weight_update", values=[np.nan, 1.0])))
    assert math.isnan(report.statistic("update_ratio")["a"])


def test_shares_of_calls_are_weighted_by_their_elements():
    first = row("output", values=np.ones(30), call=0, saturated=0.5, dead_units=1.0)
    second = row("output", values=np.ones(10), call=1, saturated=0.1)
    report = SignalReport((first, second, row("output", "b")))
    assert report.statistic("saturated") == {"a": pytest.approx((0.5 * 30 + 0.1 * 10) / 40)}
    assert report.statistic("dead_units") == {"a": 1.0}
    assert report.statistic("saturated_units") == {}


def test_nonfinite_counts_all_that_was_read_of_a_layer():
    report = SignalReport(
        (row("output", values=[np.nan, 1]), row("weight", values=[np.inf, -np.inf]), row("output", "b"))
    )
    assert report.statistic("nonfinite") == {"a": 3.0, "b": 0.0}


def test_kinds_of_taps_that_statistics_need():
    assert needed_kinds(["dead_units"]) == ("output",)
    assert needed_kinds(["update_ratio", "pre_activation_mean"]) == ("pre_activation", "weight", "weight_update")
    expected = ("output", "output_gradient", "weight", "weight_gradient", "weight_update")
    assert needed_kinds(DEFAULT_STATISTICS) == needed_kinds(["nonfinite"]) == expected
    assert set(DEFAULT_STATISTICS) < set(STATISTICS)
    assert check_statistics(reversed(DEFAULT_STATISTICS)) == DEFAULT_STATISTICS  # in the order of all


def test_names_are_checked():
    assert check_statistics(None) == DEFAULT_STATISTICS
    assert check_statistics(name for name in ("nonfinite", "activation_mean")) == ("activation_mean", "nonfinite")
    for wrong in ("activation_mean", ["variance"], [], 3, [["activation_mean"]]):
        with pytest.raises(
            ValueError, match=r"statistics: got .*, expected names among 'activation_mean', .*, or None"
        ):
            check_statistics(wrong)


ORDER = [
    *(("weight", "a"), ("weight", "b"), ("pre_activation", "a"), ("output", "a"), ("pre_activation", "b")),
    *(("output", "b"), ("output_gradient", "b"), ("output_gradient", "a"), ("weight_gradient", "b")),
    *(("weight_gradient", "a"), ("weight_update", "a"), ("weight_update", "b")),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_value_that_is_not_finite(first):
    """In a step's order, whatever the order of the rows: all that comes after is broken too."""
    rows = [row(kind, layer, [np.nan] if place >= first else None) for place, (kind, layer) in enumerate(ORDER)]
    rows.sort(key=lambda each: (each.tap.kind, each.tap.layer))
    assert SignalReport(tuple(rows)).first_nonfinite == Tap(*ORDER[first])


def test_backward_the_later_call_comes_first():
    """Forward the first, whatever the order of the rows."""
    for kind, call in (("output", 0), ("output_gradient", 1)):
        rows = [TensorStats(Tap(kind, "shared", number), Moments.from_array([np.nan])) for number in (0, 1)]
        for order in (rows, rows[::-1]):
            assert SignalReport(tuple(order)).first_nonfinite == Tap(kind, "shared", call)


def test_all_is_finite():
    assert SignalReport((row("output"),)).first_nonfinite is None
    assert SignalReport(()).first_nonfinite is None
