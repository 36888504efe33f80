"""Samples of a tensor: as many as asked, each element once, from all over it."""

import math

import keras
import numpy as np
import pytest
from helpers import values
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_initkit.statistics._sampling import BLOCK, spread_rows, take_blocks, take_sample

SHAPES = st.lists(st.integers(1, 24), min_size=0, max_size=4).map(tuple)


def numbered(shape):
    """A tensor whose elements are their own places."""
    return keras.ops.convert_to_tensor(np.arange(math.prod(shape), dtype="float32").reshape(shape))


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(1, 3000))
def test_a_sample_has_its_size_and_no_element_twice(shape, size):
    sample = values(take_sample(numbered(shape), size))
    elements = math.prod(shape)
    assert sample.ndim == 1
    assert len(set(sample.tolist())) == len(sample)
    if elements <= size:
        assert len(sample) == elements
    else:
        width = math.gcd(elements, BLOCK)
        assert len(sample) == min(max(1, size // width) * width, elements)
    blocks = values(take_blocks(numbered(shape), size))
    assert blocks.shape[1] == math.gcd(len(sample), 512)
    np.testing.assert_array_equal(blocks.reshape(-1), sample)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 3000), st.data())
def test_rows_come_one_from_each_stretch_in_order(available, data):
    wanted = data.draw(st.integers(1, available - 1))
    rows = values(spread_rows(numbered((available, 1)), wanted))[:, 0]
    assert len(rows) == wanted
    assert (np.diff(rows) > 0).all()
    if available > 1.619 * wanted:  # one from each stretch, up to the row that two stretches share
        stretch = np.arange(wanted + 1) * available / wanted
        assert (rows >= np.floor(stretch[:-1])).all()
        assert (rows < stretch[1:]).all()
    else:  # one is left out of each of the other stretches
        left_out = np.setdiff1d(np.arange(available), rows)
        stretch = np.arange(len(left_out) + 1) * available / len(left_out)
        assert (left_out >= np.floor(stretch[:-1])).all()
        assert (left_out < stretch[1:]).all()


@pytest.mark.parametrize("rows", [7, 8])
def test_all_rows_if_there_are_no_more(rows):
    matrix = numbered((rows, 3))
    assert spread_rows(matrix, 8) is matrix
    assert take_sample(matrix, None).shape == (3 * rows,)


@pytest.mark.parametrize("period", [2, 3, 4, 5, 8, 10, 16, 32, 64, 100])
def test_a_sample_keeps_step_with_no_period(period):
    """Each of the places in a period is met about as often as the others."""
    for available in (102_400, 3200, 1600, 1400):
        rows = values(spread_rows(numbered((available, 1)), 1000))[:, 0].astype(int)
        counts = np.bincount(rows % period, minlength=period)
        fair = 1000 / period
        # A low-discrepancy sequence: well within the 3 sigma of random places.
        assert np.abs(counts - fair).max() <= 3 * math.sqrt(fair), available


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow traces unknown sizes")
def test_the_last_row_is_the_last_there_is():
    """6765 is a Fibonacci number: its place is 6765.99993, which float32 rounds to 6766, a row more than there are."""
    import tensorflow as tf

    trace = tf.function(lambda x: spread_rows(x, 20_000)).get_concrete_function(tf.TensorSpec((None, 1), "float32"))
    rows = values(trace(numbered((6766, 1))))[:, 0]
    assert len(rows) == 6766
    assert rows[-1] == 6765
    assert np.abs(rows - np.arange(6766)).max() <= 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow traces unknown sizes")
@pytest.mark.parametrize("examples", [1, 5, 40, 1000])
def test_a_size_that_is_unknown_while_tracing(examples):
    import tensorflow as tf

    trace = tf.function(lambda x: (take_sample(x, 640), take_blocks(x, 640)))
    trace = trace.get_concrete_function(tf.TensorSpec((None, 4, 16), "float32"))
    sample, blocks = trace(numbered((examples, 4, 16)))
    sample = values(sample)
    assert len(sample) == min(examples, 10) * 64
    assert len(set(sample.tolist())) == len(sample)
    assert sample.max() < examples * 64
    np.testing.assert_array_equal(values(blocks).reshape(-1), sample)
