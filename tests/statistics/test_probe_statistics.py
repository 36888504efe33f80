"""Statistics of one array against their definitions in NumPy."""

import numpy as np
import pytest

from keras_initkit.signal import Moments, Tap, TensorStats
from keras_initkit.statistics._host import effective_rank, make_histogram

rng = np.random.default_rng(0)
OUTPUT = Tap("output", "layer", 0)


@pytest.mark.parametrize("shape", [(3,), (5, 4), (700, 900), (3, 50, 60, 70)])
def test_moments_of_chunks_are_those_of_the_whole(shape):
    values = (rng.standard_normal(shape) * 3 + 100).astype("float32")
    row = TensorStats.from_array(OUTPUT, values)
    whole = values.astype("float64")
    assert row.shape == shape
    assert row.moments.mean == pytest.approx(whole.mean(), rel=1e-13)
    assert row.moments.variance == pytest.approx(whole.var(), rel=1e-12)
    assert (row.moments.minimum, row.moments.maximum) == (whole.min(), whole.max())
    counts, edges = row.histogram
    np.testing.assert_array_equal(counts, np.histogram(whole, 50)[0])
    np.testing.assert_allclose(edges, np.histogram(whole, 50)[1], rtol=1e-12)


def test_units():
    values = rng.uniform(-0.9, 0.9, (1000, 10, 6)).astype("float32")
    values[..., 0] = 0  # dead
    values[..., 1] = 0.999  # saturated
    values[:500, :, 2] = -0.999  # half of the time
    values[960:, :, 3] = 0.5
    values[:960, :, 3] = 0.9999  # nearly always
    row = TensorStats.from_array(OUTPUT, values, limits=(-1.0, 1.0))
    assert row.dead_units == pytest.approx(1 / 6)
    assert row.saturated_units == pytest.approx(2 / 6)
    assert row.saturated == pytest.approx((1 + 0.5 + 0.96) / 6)
    first = TensorStats.from_array(OUTPUT, np.moveaxis(values, -1, 1), limits=(-1.0, 1.0), units_axis=1)
    assert (first.dead_units, first.saturated_units) == (row.dead_units, row.saturated_units)
    unbounded = TensorStats.from_array(OUTPUT, values, limits=(0.0, np.inf))
    assert (unbounded.saturated, unbounded.saturated_units) == (None, None)


def test_dead_units_are_zero_for_every_example():
    outputs = np.zeros((6, 4, 3))
    outputs[2, 1, 0] = 1e-30
    assert TensorStats.from_array(OUTPUT, outputs).dead_units == pytest.approx(2 / 3)


def test_saturated_units():
    outputs = np.full((100, 5), 0.2)
    outputs[:, 1] = 0.995
    outputs[:, 2] = -0.995
    outputs[:94, 3] = 1  # 94 % of the examples
    outputs[:95, 4] = 1

    def fractions(units, limits):
        return [TensorStats.from_array(OUTPUT, unit[:, None], limits=limits).saturated_units for unit in units.T]

    assert fractions(outputs, (-1.0, 1.0)) == [0, 1, 1, 0, 1]
    assert fractions(outputs, (0.0, np.inf)) == [None] * 5
    # Sigmoid: within 0.5 % of an end.
    assert fractions(np.array([[0.004, 0.006, 0.994, 0.996]]), (0.0, 1.0)) == [1, 0, 0, 1]


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (300, 300)])
def test_effective_rank_is_that_of_the_singular_values(shape):
    matrix = rng.standard_normal(shape) * np.logspace(0, -3, shape[1])
    singular = np.linalg.svd(matrix, compute_uv=False)
    shares = singular / singular.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    for scale in (1.0, 1e-200, 1e200):
        assert effective_rank(matrix * scale) == pytest.approx(expected, rel=1e-6)


def test_effective_rank_of_special_matrices():
    assert effective_rank(np.eye(5)) == pytest.approx(5)
    assert effective_rank(np.outer(np.arange(1, 9), np.ones(4))) == pytest.approx(1)
    # Hundreds of eigenvalues that are rounding alone are no directions.
    assert effective_rank(np.outer(np.ones(500), rng.standard_normal(400))) == pytest.approx(1, abs=1e-7)
    assert effective_rank(np.zeros((4, 3))) == 0
    assert effective_rank(np.array([[1.0, np.nan]])) is None
    # Rows are spread over the whole: the second half has another direction.
    halves = np.repeat(np.eye(2), 5000, axis=0)
    assert effective_rank(halves) == pytest.approx(2, rel=1e-6)


def test_histogram_of_what_is_not_finite_or_all_the_same():
    values = np.array([1.0, 2.0, np.nan, np.inf, 5.0])
    counts, edges = make_histogram(values, Moments.of(values))
    assert (sum(counts), edges[0], edges[-1]) == (3, 1.0, 5.0)
    for constant in (0.0, 1.0, 1e-30, 1e30):
        counts, edges = make_histogram(np.full(7, constant), Moments.of(np.full(7, constant)))
        assert sum(counts) == 7
        assert edges[0] < constant < edges[-1]
    assert make_histogram(np.full(3, np.nan), Moments.of(np.full(3, np.nan))) is None


@pytest.mark.parametrize(
    "values",
    [
        [-3e38, 3e38],
        [0.0, 1e-44],
        [0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))],
        [2.0, 2.0],
        [2.0**127, 2.0**127],
    ],
)
def test_histogram_of_values_that_float32_cannot_part(values):
    array = np.array(values, "float32")
    counts, edges = make_histogram(array, Moments.of(array))
    assert (len(counts), len(edges)) == (50, 51)
    assert sum(counts) == 2
    assert edges[0] <= np.float32(min(values)) <= np.float32(max(values)) <= edges[-1]
