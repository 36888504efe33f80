"""Random orthogonal matrices, uniform among all (Haar)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.initializers._core import Seed, draw

_TINY = 1e-30


def haar(shape: Sequence[int], scale: float, dtype: Any, seed: Seed) -> keras.KerasTensor:
    """Draws matrices of `shape[-2:]`, uniform among those with orthogonal rows or columns, whichever are fewer."""
    *batch, rows, columns = shape
    tall = (*batch, max(rows, columns), min(rows, columns))
    q = haar_columns(draw(tall, 1.0, "untruncated_normal", dtype, seed), scale)
    return q if rows >= columns else keras.ops.swapaxes(q, -2, -1)


def haar_columns(gaussian: keras.KerasTensor, scale: float = 1.0) -> keras.KerasTensor:
    """Makes orthogonal columns of tall matrices of standard normal numbers.

    The factor Q of a Gaussian matrix is uniform (Haar) once the diagonal of R is positive (Mezzadri 2007).
    """
    q, r = keras.ops.qr(gaussian)
    diagonal = keras.ops.diagonal(r, axis1=-2, axis2=-1)
    signs = keras.ops.sign(diagonal + _TINY)  # the sign of zero would erase a column
    return q * keras.ops.expand_dims(scale * signs, -2)  # one pass over Q
