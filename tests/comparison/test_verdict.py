import math

import numpy as np
import pytest

from keras_initkit.comparison._verdict import learned, trend, verdict
from keras_initkit.plots._comparison_figures import variance_by_layer
from keras_initkit.report._health import mark_decades


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(10_001, "explodes"), (9_999, "healthy"), (1, "healthy"), (1 / 9_999, "healthy"), (1 / 10_001, "vanishes")],
)
def test_a_signal_is_healthy_within_ten_thousand_at_every_layer(ratio, expected):
    assert trend([1.0, ratio]) == expected
    assert trend([4.0, 8.0, 4.0 * ratio, 2.0]) == expected


@pytest.mark.parametrize("ratio", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_table_picture_and_report_judge_alike(ratio):
    marks = {"healthy": "", "vanishes": "outside", "explodes": "outside"}
    assert marks[trend([1.0, ratio])] == mark_decades(math.log10(ratio))
    series = {"he_normal": np.array([[1.0, ratio]])}
    title = variance_by_layer(series, {"he_normal": np.ones((1, 2))}, healthy=4.0).get_suptitle()
    assert title == f"the signal stays healthy from {'every' if trend([1.0, ratio]) == 'healthy' else 'no'} initializer"


@pytest.mark.parametrize(
    ("variances", "expected"),
    [
        ((0.0, 0.0), "vanishes"),
        ((1.0, 0.0), "vanishes"),
        ((1.0, math.inf), "explodes"),
        ((1.0, math.nan), "explodes"),
        ((math.inf, math.inf), "explodes"),
        ((1e-300, 1e300), "explodes"),
    ],
)
def test_trend_of_zero_and_of_overflow(variances, expected):
    assert trend(variances) == expected


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
    assert verdict([1.0, 1.0], [1.0, 1.0], 0.9, 0.1, 100) == "signal healthy, learns"
    assert verdict([1.0, 1.0], [1e6, 1.0], 0.1, 0.1, 100) == "signal healthy, gradient explodes, does not learn"
    assert verdict([1.0, math.nan], [math.nan, math.nan], 0.1, 0.1, 100) == "signal explodes, does not learn"
