"""What the first measured batches of a training run show of the data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.diagnosis.task._label_facts import Inputs, Labels, describe_inputs
from keras_initkit.diagnosis.task._task import Task, flat_arrays, labels_by_output
from keras_initkit.structure._layer_paths import named_layers

MOST_BATCHES = 10
MOST_ELEMENTS = 1_000_000


class RunBatches:
    """Labels and summaries of the inputs of the first batches, in the order in which `fit` took them."""

    def __init__(self) -> None:
        self._inputs: list[Inputs] = []
        self._labels: list[tuple[Any, Any]] = []  # labels and weights of each batch
        self._read = 0
        self._elements = 0
        self._steps: int | None = None
        self._fresh: frozenset[str] = frozenset()
        self._is_new = False

    def begin(self, model: keras.Model, steps: int | None, done: int) -> None:
        """Notes the number of steps that are planned, and, if none has been done, which averages have not begun."""
        self._steps, self._is_new = steps, True
        self._fresh |= {
            path
            for path, layer in (named_layers(model).items() if done == 0 else ())
            if isinstance(layer, keras.layers.BatchNormalization)
            and (not layer.built or not np.any(to_numpy(layer.moving_mean.value)))
        }

    def plan(self, steps: int | None) -> None:
        """Notes another number of steps."""
        self._steps, self._is_new = steps, True

    def read(self, batch: Any) -> None:
        """Reads a batch, as `train_step` takes it; later ones, and what holds no arrays, are passed over."""
        if batch is None or self._read >= MOST_BATCHES or self._elements > MOST_ELEMENTS:
            return
        self._read += 1
        try:
            x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
            inputs = describe_inputs(flat_arrays(x))
            labels = keras.tree.map_structure(_copied, y), None if weights is None else _copied(weights)
        except Exception:  # whatever a `train_step` of one's own takes
            self._read = MOST_BATCHES
            return
        before = self._inputs or inputs
        if len(before) == len(inputs):
            self._inputs = [a if a is b else a.merged(b) for a, b in zip(before, inputs, strict=True)]
        if y is not None:
            self._labels.append(labels)
            self._elements += sum(each.size for each in keras.tree.flatten(labels[0]) if each is not None)
        self._is_new = True

    def complete(self, task: Task) -> Task:
        """Returns the task with what the batches have shown."""
        if not self._is_new:
            return task
        self._is_new = False
        names = [output.name for output in task.outputs]
        known = [labels_by_output(y, names, weights) for y, weights in self._labels]
        joined = [_joined([each for each in batches if each is not None]) for batches in zip(*known, strict=True)]
        outputs = task.outputs
        if joined:
            outputs = tuple(replace(output, labels=each) for output, each in zip(outputs, joined, strict=True))
        return replace(
            task, outputs=outputs, inputs=tuple(self._inputs), steps=self._steps, in_order=True, fresh=self._fresh
        )


def _copied(array: Any) -> Any:
    if array is None:
        return None
    return np.array(flat_arrays(array)[0])


def _joined(batches: list[Labels]) -> Labels | None:
    if not batches or len({each.shape[1:] for each in batches}) > 1:
        return batches[0] if batches else None
    weights = [each.weights for each in batches if each.weights is not None]
    joined = np.concatenate(weights) if len(weights) == len(batches) else None
    return Labels(np.concatenate([each.values for each in batches]), joined, tuple(len(e.values) for e in batches))
