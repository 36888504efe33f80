"""Losses and metrics of the user's own that repeat labels along outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._compat import metric_functions
from keras_initkit.diagnosis.task._label_facts import Labels
from keras_initkit.diagnosis.task._task import Output, Task
from keras_initkit.diagnosis.task._task_remedies import Mismatch, labels_code, write_remedy

_LABELS, _OUTPUTS = np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.7, 0.4])


def repeats_labels(compute: Callable[[Any, Any], Any], shape: Sequence[int | None]) -> bool:
    """Returns whether a loss or metric takes labels of shape `(n,)` and outputs of shape `(n, 1)` for a table.

    Keras gives both the same number of axes before it calls a loss that is a function, and in each loss and metric of
    its own; a `Loss` with its own `call` and a metric that is a function get them as they are. `labels - outputs` then
    has the shape `(n, n)`: the difference of each label and each output. So they are computed, for three examples,
    with labels of either shape; what does not run on these is not judged.

    Args:
        compute: Function of labels and outputs, or a `keras.losses.Loss`.
        shape: Shape of the output, examples first: that of the labels lacks or has one more axis of size 1.

    Example:

    >>> repeats_labels(lambda y, p: keras.ops.mean((y - p) ** 2, axis=-1), (None, 1))
    True
    >>> repeats_labels(keras.losses.MeanSquaredError(), (None, 1))
    False
    """
    column = len(shape) == 2
    outputs = _OUTPUTS[:, None] if column else _OUTPUTS
    other, same = (_LABELS, _LABELS[:, None]) if column else (_LABELS[:, None], _LABELS)
    try:
        repeated, right = (to_numpy(compute(_tensor(labels), _tensor(outputs))).mean() for labels in (other, same))
    except Exception:  # of any kind: it was called on numbers that it was not made for
        return False
    return bool(np.isfinite([repeated, right]).all()) and not np.isclose(repeated, right, rtol=1e-3, atol=1e-6)


def find_repeated(task: Task, output: Output, labels: Labels) -> Mismatch | None:
    """Returns what is said of labels `(n,)` beside outputs `(n, 1)`, or the other way round, that are repeated."""
    shape = output.head.shape
    if {labels.shape[1:], tuple(shape[1:])} != {(), (1,)}:
        return None
    key = f"repeated {output.name}"
    if key not in task.known:
        metrics = metric_functions(task.model.model) if len(task.outputs) == 1 else []
        judged = [each for each in (output.own_loss, *metrics) if each is not None]
        task.known[key] = next((each for each in judged if repeats_labels(each, shape)), None)
    found = task.known[key]
    if found is None:
        return None
    is_loss = found is output.own_loss
    name = getattr(found, "name", None) or getattr(found, "__name__", type(found).__name__)
    message = (
        f"The {'loss' if is_loss else 'metric'} {name} repeats labels and predictions along each other: it compares "
        f"each of the n labels, of shape {_count(labels.shape)}, with all n predictions, of shape {_count(shape)}."
    )
    column = len(shape) == 2
    code = labels_code(task, output, written="y.reshape(-1, 1)" if column else "y.reshape(-1)")
    remedy = write_remedy("Give the labels the shape of the output", code)
    return Mismatch("error" if is_loss else "warning", message, remedy, "the shape of the output")


def _count(shape: tuple[int | None, ...]) -> str:
    return "(n, 1)" if len(shape) == 2 else "(n,)"


def _tensor(values: np.ndarray) -> Any:
    return keras.ops.convert_to_tensor(values, keras.backend.floatx())
