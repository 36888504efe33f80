"""Restores variables after a scheme."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np


@contextlib.contextmanager
def only_what_is_set(model: keras.Model, was_set: Callable[[keras.Variable], bool]) -> Iterator[None]:
    """Restores a model's variables on exit: all of them after an error, otherwise those that were not set.

    These are weights, moving statistics and states of random generators, but not the optimizer's variables.
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
