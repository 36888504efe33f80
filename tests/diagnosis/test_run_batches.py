"""What the first batches of a run show of its data, all of them together."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.diagnosis.task._run_batches import MOST_BATCHES, RunBatches
from keras_initkit.diagnosis.task._task import make_task

pytestmark = pytest.mark.one_backend


def completed(batches):
    model = keras.Sequential([keras.Input((2,)), L.Dense(1, "sigmoid", name="head")])
    model.compile("sgd", "binary_crossentropy")
    seen = RunBatches()
    seen.begin(model, 20, 0)
    for batch in batches:
        seen.read(batch)
    return seen.complete(make_task(ModelContext(model)))


def test_labels_of_all_batches_count():
    x = np.zeros((4, 2), "float32")
    task = completed([(x, np.zeros((4, 1))), (x[:3], np.ones((3, 1)))])
    (output,) = task.outputs
    assert output.labels.values.ravel().tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert output.labels.batches == (4, 3)
    assert output.labels.weights is None
    assert (task.steps, task.in_order) == (20, True)


def test_weights_count_where_each_batch_has_some():
    x, y, weights = np.zeros((2, 2), "float32"), np.ones((2, 1)), np.array([0.0, 1.0])
    (output,) = completed([(x, y, weights), (x, y, 2 * weights)]).outputs
    assert output.labels.weights.tolist() == [0, 1, 0, 2]
    (output,) = completed([(x, y, weights), (x, y)]).outputs
    assert output.labels.weights is None


def test_batches_of_other_shapes_are_not_joined():
    x = np.zeros((2, 2), "float32")
    (output,) = completed([(x, np.zeros((2, 1))), (x, np.zeros((2, 3)))]).outputs
    assert output.labels.shape == (2, 1)


def test_the_first_ten_are_read():
    x = np.zeros((2, 2), "float32")
    (output,) = completed([(x, np.full((2, 1), number)) for number in range(MOST_BATCHES + 3)]).outputs
    assert output.labels.values.max() == MOST_BATCHES - 1
