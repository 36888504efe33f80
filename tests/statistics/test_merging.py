"""Moments of parts, merged in any order and grouping, against one pass over the whole."""

import math

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from keras_initkit.statistics import Moments
from keras_initkit.statistics._moments import MomentRow

EPS = np.finfo("float64").eps
# Squares of what is larger or smaller leave the range of float64; zeros stay.
FINITE = st.floats(-1e150, 1e150).map(lambda x: 0.0 if abs(x) < 1e-150 else x)
ANY = FINITE | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])


def lists(elements):
    return st.lists(elements, min_size=0, max_size=12)


def merge_in_groups(parts, draw):
    """Merges neighbors, two at a time and in any grouping, until one is left."""
    parts = list(parts)
    while len(parts) > 1:
        i = draw(st.integers(0, len(parts) - 2))
        parts[i : i + 2] = [parts[i].merge(parts[i + 1])]
    return parts[0]


def tolerance_of_mean(x, merges):
    """Each merge rounds a few times; intermediate means are at most as large as the largest element."""
    return 8 * EPS * (merges + math.log2(len(x) + 1) + 1) * np.abs(x).max()


@settings(max_examples=300, deadline=None)
@given(st.lists(lists(FINITE), min_size=1, max_size=8).filter(any), st.data())
@example([[1e8, 1e8 + 1], [1e8 - 1]], None)
def test_finite_parts_merge_to_one_pass(parts, data):
    if data is None:
        merged = Moments.merged(map(Moments.from_array, parts))
    else:
        order = data.draw(st.permutations(parts))
        merged = merge_in_groups(map(Moments.from_array, order), data.draw)
    x = np.concatenate([np.asarray(part, "float64") for part in parts])
    whole = Moments.from_array(x)
    assert (merged.count, merged.zeros, merged.nonfinite) == (x.size, np.count_nonzero(x == 0), 0)
    assert (merged.minimum, merged.maximum) == (x.min(), x.max())
    slack = tolerance_of_mean(x, len(parts))
    assert abs(merged.mean - x.mean()) <= slack
    # An error e of a mean of n elements changes M2 by at most 2 e sqrt(n M2) + n e^2.
    spread = 2 * slack * math.sqrt(x.size * whole.m2) + x.size * slack**2
    assert abs(merged.m2 - whole.m2) <= 8 * EPS * (len(parts) + x.size) * whole.m2 + 4 * spread


@settings(max_examples=300, deadline=None)
@given(st.lists(lists(ANY), min_size=1, max_size=6), st.data())
def test_nan_and_infinities_merge_to_what_one_pass_has(parts, data):
    x = np.concatenate([np.asarray(part, "float64") for part in parts])
    order = data.draw(st.permutations(parts))
    merged, whole = merge_in_groups(map(Moments.from_array, order), data.draw), Moments.from_array(x)
    for name in ("count", "zeros", "nonfinite", "minimum", "maximum"):
        assert_array_equal(getattr(merged, name), getattr(whole, name), name)
    if not np.isfinite(x).all():
        assert_array_equal(merged.mean, whole.mean)
        assert math.isnan(merged.m2)
        assert math.isnan(whole.m2)


@given(lists(ANY))
def test_nothing_is_neutral(values):
    moments, nothing = Moments.from_array(values), Moments()
    assert repr(nothing.merge(moments)) == repr(moments.merge(nothing)) == repr(moments)


@given(FINITE, st.integers(1, 50))
def test_equal_elements_have_no_variance(value, count):
    moments = Moments.merged([Moments.from_array([value])] * count)
    assert moments.m2 == 0
    assert moments.mean == value
    assert moments.stddev == 0


def test_properties_by_hand():
    moments = Moments.from_array([0.0, 0.0, 3.0, 5.0])
    assert (moments.variance, moments.mean_square) == (4.5, 8.5)
    assert (moments.stddev, moments.zero_fraction) == (math.sqrt(4.5), 0.5)
    assert list(moments.to_dict()) == ["count", "mean", "m2", "minimum", "maximum", "zeros", "nonfinite"]
    assert moments.to_dict() == {
        "count": 4, "mean": 2.0, "m2": 18.0, "minimum": 0.0, "maximum": 5.0, "zeros": 2, "nonfinite": 0,
    }  # fmt: skip


def test_a_row_of_a_device_by_its_columns():
    row = MomentRow(count=4, mean=2.0, scaled_m2=2.0, scale=3.0, minimum=-1.0, maximum=5.0, zeros=2, nonfinite=1)
    assert Moments.from_row(row) == Moments(4, 2.0, 18.0, -1.0, 5.0, 2, 1)
