"""Batches of the user's data, or of data drawn from the model's input specification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._checks import checked_count
from keras_initkit.inputs._labels import draw_labels
from keras_initkit.inputs._specs import draw_inputs, prepared

DRAWN_EXAMPLES = 256


def shuffled_rows(examples: int, batch_size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields the rows of one full batch after another, endlessly, each epoch in another order."""
    while True:
        order = generator.permutation(examples)
        for start in range(0, examples - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def take_rows(data: Any, rows: Any) -> Any:
    """Returns rows of the arrays in `data` as tensors."""
    return keras.tree.map_structure(lambda each: keras.ops.convert_to_tensor(each[rows]), data)


def disjoint_batches(model: keras.Model, x: Any, batches: int, batch_size: int | None, seed: int) -> Iterator[Any]:
    """Yields batches that share no example, in random order where there are more examples than asked for.

    Without `x`, inputs are drawn, 256 for each batch by default; of `x`, all examples are divided among the batches.
    """
    batches = checked_count("batches", batches)
    batch_size = None if batch_size is None else checked_count("batch_size", batch_size)
    if x is None:
        for number in range(batches):
            drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            yield prepared(model, draw_inputs(model, batch_size or DRAWN_EXAMPLES, drawn))
        return
    x = prepared(model, x)
    _check_finite(x)
    examples = int(keras.tree.flatten(x)[0].shape[0])
    size = batch_size or examples // batches
    if size * batches > examples or not size:
        raise ValueError(
            f"batches, batch_size: got {batches} and {batch_size}, expected at most the data's {examples} examples."
        )
    if size == examples:
        yield x
        return
    x, rows = keras.tree.map_structure(to_numpy, x), shuffled_rows(examples, size, np.random.default_rng(seed))
    for _ in range(batches):
        yield take_rows(x, np.sort(next(rows)))


class TrainingBatches:
    """Batches of examples and labels, in an order that the seed alone decides.

    Without `x` each batch draws new inputs from the model's specification; without `y`, labels for the loss.
    """

    def __init__(self, model: keras.Model, x: Any, y: Any, batch_size: int, seed: Any, loss: Any = None):
        self._model, self._loss = model, loss
        self._generator = np.random.default_rng(seed)
        self._x, self._y = (None if each is None else keras.tree.map_structure(to_numpy, each) for each in (x, y))
        self._shape: tuple[int, ...] | None = None
        self.size = checked_count("batch_size", batch_size)
        if x is not None:
            examples = len(keras.tree.flatten(self._x)[0])
            self.size = min(self.size, examples)
            self._rows = shuffled_rows(examples, self.size, self._generator)

    def next_rows(self, overlap: Any = None) -> Any:
        """Returns what `take` needs for the next batch; its first half is that of `overlap`, if given."""
        if self._x is None:
            return int(self._generator.integers(2**31))
        rows = next(self._rows)
        return rows if overlap is None else np.concatenate([overlap[: self.size // 2], rows])[: self.size]

    def take(self, rows: Any) -> tuple[Any, Any]:
        """Returns inputs and labels of a batch as tensors."""
        if self._x is None:
            x, generator = draw_inputs(self._model, self.size, seed=rows), np.random.default_rng(rows)
            x = keras.tree.map_structure(keras.ops.convert_to_tensor, x)
        else:
            x, generator = take_rows(self._x, rows), self._generator
        if self._y is not None:
            return x, take_rows(self._y, rows)
        return x, keras.ops.convert_to_tensor(draw_labels(self._output_shape(x), self._loss, generator))

    def _output_shape(self, x: Any) -> tuple[int, ...]:
        if self._shape is None:
            with keras.StatelessScope():
                outputs = keras.tree.flatten(self._model(x, training=False))
            if len(outputs) > 1:
                raise ValueError(f"y: got no labels for a model with {len(outputs)} outputs, expected labels.")
            self._shape = tuple(outputs[0].shape)
        return self._shape


def find_nonfinite(x: Any) -> tuple[int | None, np.ndarray] | None:
    """Returns the place of the first input with NaN or infinity, `None` for an only one, and which examples have it."""
    leaves = keras.tree.flatten(x)
    for place, leaf in enumerate(leaves):
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(leaf.dtype)):
            values = to_numpy(leaf)
            broken = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if broken.any():
                return place if len(leaves) > 1 else None, broken
    return None


def _check_finite(x: Any) -> None:
    found = find_nonfinite(x)
    if found is not None:
        place, broken = found
        raise ValueError(
            f"{'x' if place is None else f'x[{place}]'}: got NaN or infinity in {int(broken.sum())} of {len(broken)} "
            f"examples, the first of them number {int(np.argmax(broken))}; expected finite numbers. "
            "Drop or fill them first."
        )
