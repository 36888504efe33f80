"""All of a scheme or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np


@contextlib.contextmanager
def only_what_is_set(model: keras.Model, was_set: Callable[[keras.Variable], bool]) -> Iterator[None]:
    """A model's variables come out as they went in: all of them after an error, else those that were not set.

    These are weights, averages of normalisation, states of random generators; not the optimizer's.
    """
    before = [(variable, _copy(variable)) for variable in model.variables]
    try:
        yield
    except BaseException:  # an interrupt leaves nothing half done either
        _restore(before)
        raise
    _restore([(variable, values) for variable, values in before if not was_set(variable)])


def _copy(variable: keras.Variable) -> Any:
    return np.array(keras.ops.convert_to_numpy(variable.value))  # a copy: PyTorch's shares memory


def _restore(before: list[tuple[keras.Variable, Any]]) -> None:
    for variable, values in before:
        if _copy(variable).tobytes() != values.tobytes():
            variable.assign(values)
