"""Batches for schemes that train, of the user's data or drawn."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_initkit._checks import checked_count
from keras_initkit.inputs._specs import draw_inputs
from keras_initkit.schemes._plan import Plan


class Batches:
    """Batches of the plan's data, in the same order for the same seed; without data, of drawn inputs and labels.

    Args:
        plan: with `x` and `y`, or neither.
        batch_size: at most all examples.
        loss: what labels are drawn for where there are none.
        scheme: its name, for errors.
    """

    def __init__(self, plan: Plan, batch_size: int, loss: Any, scheme: str):
        batch_size = checked_count("batch_size", batch_size)
        self._model, self._loss, self._scheme = plan.model, loss, scheme
        self._generator = np.random.default_rng([plan.seed, 1])
        self._x, self._y = (
            None if each is None else keras.tree.map_structure(_numpy, each) for each in (plan.x, plan.y)
        )
        self._shape: tuple[int, ...] | None = None
        self.size = batch_size
        if self._x is not None:
            self._examples = len(keras.tree.flatten(self._x)[0])
            self.size = min(batch_size, self._examples)
            self._rows = np.zeros(0, int)

    def next(self, overlap: Any = None) -> Any:
        """Rows of the data for `take`, of which `overlap` gives the first half."""
        if self._x is None:
            return int(self._generator.integers(2**31))
        if len(self._rows) < self.size:
            self._rows = self._generator.permutation(self._examples)
        rows, self._rows = self._rows[: self.size], self._rows[self.size :]
        return rows if overlap is None else np.concatenate([overlap[: self.size // 2], rows])[: self.size]

    def take(self, rows: Any) -> tuple[Any, Any]:
        """Inputs and labels as tensors."""
        if self._x is None:
            x = draw_inputs(self._model, self.size, seed=rows)
            generator = np.random.default_rng(rows)
        else:
            x = keras.tree.map_structure(lambda each: each[rows], self._x)
            generator = self._generator
        x = keras.tree.map_structure(keras.ops.convert_to_tensor, x)
        if self._y is None:
            y = draw_labels(self._output_shape(x), self._loss, generator)
        else:
            y = keras.tree.map_structure(lambda each: each[rows], self._y)
        return x, keras.tree.map_structure(keras.ops.convert_to_tensor, y)

    def _output_shape(self, x: Any) -> tuple[int, ...]:
        if self._shape is None:
            with keras.StatelessScope():
                outputs = keras.tree.flatten(self._model(x, training=False))
            if len(outputs) > 1:
                raise ValueError(
                    f"{self._scheme}: got no labels for a model with {len(outputs)} outputs, expected y. Give (x, y)."
                )
            self._shape = tuple(outputs[0].shape)
        return self._shape


def draw_labels(shape: tuple[int, ...], loss: Any, generator: np.random.Generator) -> np.ndarray:
    """Labels that a loss takes for an output of this shape: classes, 0 or 1, or else Gaussian numbers."""
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    name = str(name).replace("_", "").lower()
    if name.startswith("sparsecategorical"):
        return generator.integers(0, shape[-1], shape[:-1])
    if name.startswith("categorical"):
        return np.eye(shape[-1], dtype="float32")[generator.integers(0, shape[-1], shape[:-1])]
    if name.startswith("binary"):
        return generator.integers(0, 2, shape).astype("float32")
    return generator.standard_normal(shape).astype("float32")


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
