"""Training with LayerStatsCallback is training without it, to the last bit, for graphs that nobody would write down.

Which operations TensorFlow computes together depends on what reads them, on the processor and on oneDNN, so `.ci/run`
has this with `TF_ENABLE_ONEDNN_OPTS=0` and `=1`. The search takes a quarter of an hour: `pytest -m slow` of this file.
"""

import keras
import pytest
from hypothesis import given, settings
from random_graphs import Program, differences, programs

from keras_initkit.callbacks import LayerStatsCallback

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only there a reader changes a graph")

# What the search has found, less the steps that it takes not.
FOUND = {
    "softened_logits": Program((), "softened_3", sequences=True),
    "number_times_factor": Program((("minus_shift", 0, 1, 0.7),), "half_square"),
    "mixed": Program((("mixed", 0, 1, 0.7), ("minus_shift", 0, 1, 0.7)), "half_square"),
    "product_of_products": Program(
        (("product_and_product", 0, 0, 0.3), ("product_over", 0, 0, 10.0)), "half_square", "adam", True
    ),
    "factors_before_a_function": Program(
        (("gain", 0, 0, 0.3), ("over", 0, 0, 10.0), ("tanh", 0, 0, 0.1)), "mse", "adam"
    ),
    "swish_before_a_function": Program((("dense_silu", 2, 1, 0.3), ("tanh", 0, 3, 0.1)), "mae", "momentum"),
    "last_of_three_summands": Program(
        (("product_and_sum", 3, 1, 0.7), ("product_over", 3, 2, 1.1), ("sum_of_three", 3, 0, 0.7)), "mse", "adam", True
    ),
    "functions_in_a_row": Program(
        (
            ("log_plus_one", 1, 0, 0.7),
            ("number_minus_product", 0, 0, 1.1),
            ("number_over", 1, 0, 0.7),
            ("subtract", 3, 0, 1.1),
            ("gain", 0, 5, 7.0),
            ("summed", 0, 0, 0.1),
            ("plus", 0, 1, 0.7),
            ("batch_normalization", 0, 1, 10.0),
            ("tanh", 3, 1, 0.7),
        ),
        "softened_10",
        "adam",
    ),
}


def measuring():
    return LayerStatsCallback(None, 2, on_finding="ignore")


def assert_same(program, jit_compile):
    different = differences(program, measuring, jit_compile)
    # A sum of three tensors or more begins with one that nothing reads any more; which that is may be a matter of time.
    # Then plain trainings differ among themselves.
    if different and not any(differences(program, keras.callbacks.Callback, jit_compile) for _ in range(8)):
        raise AssertionError(f"{different} of {program}")


@pytest.mark.parametrize("name", FOUND)
def test_graphs_that_were_once_different(name):
    assert differences(FOUND[name], measuring) == {}


def test_a_graph_that_was_once_different_under_xla():
    assert differences(FOUND["mixed"], measuring, jit_compile=True) == {}


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(programs())
def test_random_graphs_to_the_last_bit(program):
    assert_same(program, jit_compile=False)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(programs())
def test_random_graphs_under_xla_to_the_last_bit(program):
    assert_same(program, jit_compile=True)
