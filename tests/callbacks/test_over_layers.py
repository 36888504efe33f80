"""Scalars of all layers together, against NumPy and the rule for healthy."""

import math

import numpy as np
import pytest

from keras_initkit.callbacks._over_layers import NONFINITE, find_charts, over_layers
from keras_initkit.report._health import signal_decades
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats

RNG = np.random.default_rng(0)


def report(*scales, kind="output", step=0):
    """One layer for each factor, 0 and NaN included, of which the kernels are equal."""
    rows = [TensorStats(Tap(kind, f"d/{i}"), Moments.of(s * RNG.standard_normal(50))) for i, s in enumerate(scales)]
    return SignalReport.of_step(step, 0, rows)


def test_the_signal_is_in_decades_from_where_it_enters():
    measured = report(1.0, 0.1, 10.0, 1e-3, 1.0)  # the last one is the output, which is not judged
    tags = over_layers(measured, measured.scalars(["activation_variance"]))
    decades = list(signal_decades(measured)[0].values())
    assert decades[0] == 0
    assert len(decades) == 4
    assert {tag.removeprefix("Signal decades/forward "): value for tag, value in tags.items()} == {
        "min": min(decades),
        "median": np.median(decades),
        "max": max(decades),
    }
    assert tags["Signal decades/forward min"] == pytest.approx(-6, abs=0.5)


def test_what_is_lost_is_drawn_at_the_end_of_float32_and_what_is_not_finite_is_left_out():
    measured = report(1.0, 0.0, math.nan)
    tags = over_layers(measured, measured.scalars(["activation_variance", "nonfinite"]))
    assert tags["Signal decades/forward min"] == -38
    assert tags["Signal decades/forward max"] == 0
    assert tags[NONFINITE] == 50
    broken = report(math.nan, math.nan)
    assert over_layers(broken, broken.scalars(["activation_variance"])) == {}


def test_what_spans_decades_is_a_logarithm():
    values = {"update_ratio/a": 1e-3, "update_ratio/b": 0.0, "update_ratio/c": 1e-12, "weight_variance/a": 100.0}
    values |= {"dead_units/a/b": 0.25, "dead_units/c": 0.0, "peak/a": -50.0, "peak/b": -math.inf}
    tags = over_layers(SignalReport(()), values)
    assert tags == pytest.approx(
        {
            **{
                f"Weights log10/update ratio {part}": value
                for part, value in (("min", -8), ("median", -8), ("max", -3))
            },
            **{f"Statistics log10/weight_variance {part}": 2.0 for part in ("min", "median", "max")},
            **{f"Units/dead {part}": value for part, value in (("min", 0), ("median", 0.125), ("max", 0.25))},
            **{f"Statistics/peak {part}": -50.0 for part in ("min", "median", "max")},
        }
    )


def test_a_chart_has_something_to_show():
    tags = {f"Units/{kind} {part}": 0.0 for kind in ("dead", "saturated") for part in ("min", "median", "max")}
    assert find_charts({**tags, NONFINITE: 0.0}) == {}
    assert find_charts({**tags, "Units/dead max": 0.1, NONFINITE: 1.0, "Statistics/peak min": 2.0}) == {
        "Units/dead": "dead units: fraction",
        NONFINITE: "elements that are NaN or infinite",
        "Statistics/peak": "peak",
    }
