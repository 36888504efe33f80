import doctest
import importlib
import pickle

import numpy as np
import pytest

from keras_initkit.callbacks import every, logarithmic
from keras_initkit.callbacks._schedule import make_schedule


def measured_steps(update_freq, epochs=2, batches=7, at_once=1):
    due = make_schedule(update_freq)
    return [
        epoch * batches + batch
        for epoch in range(epochs)
        for batch in range(0, batches, at_once)
        if due(epoch * batches + batch, batch, at_once)
    ]


def test_when_a_step_is_measured():
    assert measured_steps("epoch") == [0, 7]
    assert measured_steps("batch") == list(range(14))
    assert measured_steps(1) == list(range(14))
    assert measured_steps(5) == measured_steps(np.int64(5)) == [0, 5, 10]


def test_steps_that_run_together_hold_a_multiple():
    assert measured_steps(5, batches=8, at_once=4) == [0, 4, 8, 12]  # 0..3, 4..7, 8..11, 12..15
    assert measured_steps(7, batches=8, at_once=4) == [0, 4, 12]
    assert measured_steps("epoch", batches=8, at_once=4) == [0, 8]


def test_functions_of_the_step():
    assert measured_steps(lambda step: step in (0, 3, 9)) == [0, 3, 9]
    assert measured_steps(lambda step: step in (1, 9), batches=8, at_once=4) == [0, 8]  # in 0..3 and 8..11
    assert measured_steps(every(6, first=2)) == [0, 1, 6, 12]
    assert measured_steps(every(np.int64(6), first=np.uint8(2))) == [0, 1, 6, 12]
    assert measured_steps(every(100), batches=20) == list(range(10))
    assert measured_steps(every(5, first=0)) == [0, 5, 10]


@pytest.mark.parametrize("per_decade", [1, 3, 10])
def test_logarithmic_steps_are_evenly_spread(per_decade):
    due = make_schedule(pickle.loads(pickle.dumps(logarithmic(per_decade))))
    steps = [step for step in range(10_000) if due(step, step, 1)]
    assert steps[:10] == list(range(10))
    exact = [10 ** (k / per_decade) for k in range(per_decade, 4 * per_decade)]
    assert steps[10:] == [round(step) for step in exact]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: every(0), "number: got 0, expected a positive integer"),
        (lambda: every(2.5), "number: got 2.5, expected a positive integer"),
        (lambda: every(2, first=-1), "first: got -1, expected an integer of at least 0"),
        (lambda: logarithmic(True), "per_decade: got True, expected a positive integer"),
    ],
    ids=["zero", "fraction", "negative", "bool"],
)
def test_bad_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_examples():
    assert doctest.testmod(importlib.import_module("keras_initkit.callbacks._schedule")).failed == 0


@pytest.mark.parametrize("update_freq", ["epochs", 0, -1, 1.5, None, True])
def test_anything_else_is_refused(update_freq):
    with pytest.raises(
        ValueError, match=r"update_freq: got .*, expected 'epoch', 'batch', a positive number of batches, or"
    ):
        make_schedule(update_freq)
