import math

import pytest

from keras_initkit.comparison._verdict import learned, trend, verdict


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (1000.5, "explodes"),
        (1000.0, "grows"),
        (10.5, "grows"),
        (10.0, "steady"),
        (1.0, "steady"),
        (0.1, "steady"),
        (0.0999, "fades"),
        (0.001, "fades"),
        (0.000999, "vanishes"),
    ],
)
def test_trend_changes_at_factors_of_ten_and_a_thousand(ratio, expected):
    assert trend(1.0, ratio) == expected
    assert trend(4.0, 4.0 * ratio) == expected


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0.0, 0.0, "vanishes"),
        (1.0, 0.0, "vanishes"),
        (1.0, math.inf, "explodes"),
        (1.0, math.nan, "explodes"),
        (math.inf, math.inf, "explodes"),
        (math.nan, math.nan, "explodes"),
    ],
)
def test_trend_of_zero_and_of_overflow(first, last, expected):
    assert trend(first, last) == expected


def test_learned_is_five_standard_errors_above_chance():
    # sqrt(0.25 * 0.75 / 300) = 0.025, times five is 0.125
    assert not learned(0.25, 0.25, 300)
    assert not learned(0.3749, 0.25, 300)
    assert learned(0.3751, 0.25, 300)
    assert learned(0.3751, 0.25, 301)
    assert not learned(0.3751, 0.25, 299)


def test_nothing_beats_a_test_set_of_one_class():
    assert not learned(1.0, 1.0, 100)


def test_verdict_names_the_gradient_only_where_it_differs():
    assert verdict((1.0, 1.0), (1.0, 1.0), 0.9, 0.1, 100) == "signal steady, learns"
    assert verdict((1.0, 1.0), (1.0, 1e6), 0.1, 0.1, 100) == "signal steady, gradient explodes, does not learn"
    assert verdict((1.0, math.nan), (math.nan, math.nan), 0.1, 0.1, 100) == "signal explodes, does not learn"
