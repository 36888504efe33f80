import pytest

from keras_initkit.callbacks.schedule import schedule


def measured_steps(update_freq, epochs=2, batches=7, at_once=1):
    due = schedule(update_freq)
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
    assert measured_steps(5) == [0, 5, 10]


def test_steps_that_run_together_hold_a_multiple():
    assert measured_steps(5, batches=8, at_once=4) == [0, 4, 8, 12]  # 0..3, 4..7, 8..11, 12..15
    assert measured_steps(7, batches=8, at_once=4) == [0, 4, 12]
    assert measured_steps("epoch", batches=8, at_once=4) == [0, 8]


@pytest.mark.parametrize("update_freq", ["epochs", 0, -1, 1.5, None, True])
def test_anything_else_is_refused(update_freq):
    with pytest.raises(ValueError, match=r"update_freq: got .*, expected 'epoch', 'batch' or a number of batches"):
        schedule(update_freq)
