"""The base of initializers beyond the scaling family: from a shape to a cast tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit._checks import checked_shape
from keras_initkit.initializers._core import Cloneable, wide

CONVOLUTION = "a convolution kernel (field..., inputs, outputs) in one, two or three dimensions"


def at_center(matrix: keras.KerasTensor, field: Sequence[int]) -> keras.KerasTensor:
    """Returns a convolution kernel with `matrix` at the tap that `padding="same"` puts on the pixel itself, else 0."""
    matrix = keras.ops.reshape(matrix, (1,) * len(field) + tuple(matrix.shape))
    return keras.ops.pad(matrix, [((size - 1) // 2, size // 2) for size in field] + [(0, 0), (0, 0)])


class ShapedInitializer(Cloneable, keras.initializers.Initializer):
    """Base of initializers for shapes of certain ranks; a subclass computes the values in float32 at least."""

    ranks: Sequence[int]
    meaning: str  # names what has such a shape, in the error

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> keras.KerasTensor:
        """Returns values of `shape`, cast to `dtype` (Keras' default float type, if None)."""
        shape = checked_shape(shape, self.ranks, self.meaning)
        dtype = keras.backend.standardize_dtype(dtype)
        self._check(shape)
        if 0 in shape:
            return keras.ops.zeros(shape, dtype)
        return keras.ops.cast(self._values(shape, wide(dtype)), dtype)

    def _check(self, shape: tuple[int, ...]) -> None:
        """Raises for sizes that this initializer has no values for."""

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        raise NotImplementedError
