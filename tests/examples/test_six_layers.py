"""Activations collapse, stay useful, saturate: each layer against mean-field theory by SciPy's quadrature."""

import math

import numpy as np
import pytest
from helpers import second_moment
from scipy import stats

from keras_initkit.examples import reproduce

pytestmark = pytest.mark.slow

WIDTH = 256


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    return reproduce("six_layers", str(tmp_path_factory.mktemp("out")), seed=3, width=WIDTH)["layers"]


def of(layers, sd):
    return [row for row in layers if row["weights' sd"] == sd]


def next_variance(variance_in, fan_in, sd):
    """Variance of tanh(z), z ~ N(0, fan_in sd^2 variance_in)."""
    return second_moment(np.tanh, fan_in * sd**2 * variance_in)


@pytest.mark.parametrize("sd", [0.01, 0.05, 1.0])
def test_each_layer_has_the_variance_that_theory_expects_of_it(layers, sd):
    rows = of(layers, sd)
    assert len(rows) == 6
    variance, fan_in = 1.0, 64  # the digits, standardized
    # In the variance of a draw, each layer adds a relative error of sqrt(2 / width), and what enters the next one.
    for depth, row in enumerate(rows, 1):
        variance, fan_in = next_variance(variance, fan_in, sd), WIDTH
        assert row["activations' sd"] == pytest.approx(math.sqrt(variance), rel=4 * math.sqrt(depth / (2 * WIDTH)))
        assert row["predicted"] == pytest.approx(math.sqrt(variance), rel=0.03)  # of this batch, not of all the digits


def test_too_narrow_collapses_forward_and_backward(layers):
    shrinks = 0.01 * math.sqrt(WIDTH)
    forward = [row["activations' sd"] for row in of(layers, 0.01)]
    backward = [row["gradients' sd"] for row in of(layers, 0.01)]
    tolerance = math.exp(4 * math.sqrt(5 / (2 * WIDTH)))
    assert shrinks**5 / tolerance < forward[-1] / forward[0] < shrinks**5 * tolerance
    assert shrinks**5 / tolerance < backward[0] / backward[-1] < shrinks**5 * tolerance


def test_too_wide_saturates(layers):
    rows = of(layers, 1.0)
    for row in rows[1:]:
        # |z| > atanh(0.99), z of a variance between those of activations at +-1 and at 0.9
        least, most = (2 * stats.norm.sf(np.arctanh(0.99) / math.sqrt(WIDTH * v)) for v in (0.85, 1.0))
        assert least < row["saturated"] < most
    assert max(row["saturated"] for row in of(layers, 0.05)) < 0.01


def test_the_same_seed_gives_the_same_numbers(layers, tmp_path):
    assert reproduce("six_layers", str(tmp_path), seed=3, width=WIDTH)["layers"] == layers
