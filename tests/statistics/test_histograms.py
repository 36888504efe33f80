"""Histograms on the host and on the device."""

import math

import keras
import numpy as np
import pytest
from helpers import values
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_initkit.statistics import Moments, _host
from keras_initkit.statistics._device import BINS, LOG_EDGES, count_by_magnitude, trim_histogram
from keras_initkit.statistics._host import make_histogram

ANY = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=300, deadline=None)
@given(st.lists(ANY, min_size=1, max_size=40))
@example([0.0])
@example([1e-300, -1e-300])
@example([0.0, 2.2250738585e-313])
@example([1.7e308, -1.7e308])
@example([5.0, 5.0 + 1e-12])
@example([5.0, 5.0 + 2e-15])
def test_every_finite_element_is_counted_between_ascending_edges(elements):
    x = np.asarray(elements)
    histogram = make_histogram(x, Moments.from_array(x))
    finite = x[np.isfinite(x)]
    if not finite.size:
        assert histogram is None
        return
    counts, edges = histogram
    assert (len(counts), len(edges)) == (50, 51)
    assert sum(counts) == finite.size
    assert (np.diff(edges) > 0).all()
    quarter = np.finfo("float64").max / 4
    assert edges[0] <= max(finite.min(), -quarter)
    assert edges[-1] >= min(finite.max(), quarter)


def test_bins_are_numpys_over_the_range_of_the_finite_elements():
    x = np.append(np.random.default_rng(0).normal(size=1000), [np.nan, np.inf, -np.inf])
    counts, edges = make_histogram(x, Moments.from_array(x))
    expected = np.histogram(x[np.isfinite(x)], 50)
    np.testing.assert_array_equal(counts, expected[0])
    np.testing.assert_allclose(edges, expected[1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-20])
def test_equal_elements_lie_in_the_middle_of_a_narrow_range(value):
    counts, edges = make_histogram(np.full(5, value), Moments.from_array(np.full(5, value)))
    half = max(0.5e-6 * abs(value), 1e-30)
    assert edges[0] == pytest.approx(value - half, rel=1e-12)
    assert edges[-1] == pytest.approx(value + half, rel=1e-12)
    assert sum(counts) == sum(counts[24:26]) == 5


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (7, 1), (1, 9)])
def test_chunks_are_the_whole_in_order(shape, monkeypatch):
    monkeypatch.setattr(_host, "CHUNK", 4)
    x = np.arange(math.prod(shape), dtype="float32").reshape(shape or 1)
    chunks = list(_host.iterate_chunks(x))
    np.testing.assert_array_equal(np.concatenate(chunks), x)
    assert {chunk.dtype for chunk in chunks} == {np.dtype("float64")}
    assert all(chunk.size <= max(4, x[:1].size) for chunk in chunks)
    assert len(chunks) == -(-len(x) // max(1, 4 // x[:1].size))


def count(*tensors, together=False):
    blocks = [(place, keras.ops.convert_to_tensor(x.astype("float32"))) for place, x in enumerate(tensors)]
    return values(count_by_magnitude(blocks, len(tensors), together))


def test_the_middle_of_every_bin_is_counted_there():
    edges = LOG_EDGES.copy()
    middles = np.sign(edges[:-1] + edges[1:]) * np.sqrt(np.abs(edges[:-1] * edges[1:]))
    middles[BINS // 2] = 0.0
    counts = count(middles[None], np.zeros((2, 3)))
    np.testing.assert_array_equal(counts[0], np.ones(BINS))
    assert counts[1, BINS // 2] == counts[1].sum() == 6


@pytest.mark.parametrize("together", [False, True])
def test_what_is_not_finite_is_not_counted(together):
    x = np.array([[np.nan, np.inf, -np.inf, 1.5], [-1.5, 1e-37, 3e38, -3e38]])
    counts = count(x, np.ones((3, 4)), together=together)
    assert counts.sum(axis=1).tolist() == [5, 12]
    assert (counts[0, 0], counts[0, -1], counts[0, BINS // 2]) == (1, 1, 1)


def test_empty_ends_are_trimmed():
    counts = np.zeros(BINS)
    assert trim_histogram(counts) is None
    counts[[3, 5]] = 2, 1
    assert trim_histogram(counts) == ((2, 0, 1), tuple(LOG_EDGES[3:7]))
    counts[-1] = 4
    assert trim_histogram(counts)[1][-1] == LOG_EDGES[-1] == float(np.finfo("float32").max)
