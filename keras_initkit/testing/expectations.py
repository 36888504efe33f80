"""What each known initializer is expected to draw: one table, filled by `expect`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Shape = tuple[int, ...]
# A frozen scipy.stats distribution of independent elements, or a predicate on the values.
Declared = Any

# A dense kernel and a convolution's, each rectangular and of 2**17 elements or more.
SHAPES: tuple[Shape, ...] = ((256, 512), (3, 5, 64, 144))
# Tall, wide and convolutional: the two fans differ by a factor of 16 at least.
FAN_SHAPES: tuple[Shape, ...] = ((64, 1024), (1024, 64), (3, 3, 32, 512))


@dataclass(frozen=True)
class Expectation:
    """What `expect` was told about one class."""

    declared: Callable[[Any, Shape], Declared]
    shapes: tuple[Shape, ...] = SHAPES
    fan_shapes: tuple[Shape, ...] = FAN_SHAPES
    small: Shape = (6, 4)
    rejects: tuple[Shape, ...] = ()
    zero_sized: tuple[Shape, ...] = ((0, 4), (4, 0))
    deviations: Mapping[str, str] = field(default_factory=dict)


TABLE: dict[type, Expectation] = {}


def expect(
    initializer_class: type,
    *,
    shapes: Sequence[Shape] = SHAPES,
    fan_shapes: Sequence[Shape] | None = None,
    small: Shape = (6, 4),
    rejects: Sequence[Shape] = (),
    zero_sized: Sequence[Shape] | None = None,
    deviations: Mapping[str, str] | None = None,
) -> Callable[[Callable[[Any, Shape], Declared]], Callable[[Any, Shape], Declared]]:
    """Declares what an initializer class draws, so that the checks know it without `expected`.

    It decorates a function of an instance and a shape, which returns a frozen `scipy.stats` distribution (the
    elements are then independent draws of it) or a predicate on the values, which returns False, or raises an
    `AssertionError` that says more, for values that it does not accept.

    Args:
        initializer_class: the class; subclasses are not meant.
        shapes: shapes drawn for the statistics. The documented power holds from 2**17 elements.
        fan_shapes: shapes whose two fans differ, for `fan_mode`; by default dense and convolution kernels, or
            `shapes` where those are given.
        small: a small valid shape, for everything that needs no statistics.
        rejects: shapes that the initializer must refuse with a `ValueError`.
        zero_sized: shapes without elements that it must accept; by default `(0, 4)` and `(4, 0)`, or `small`
            with no inputs.
        deviations: names of checks that the class fails by design, with the reason.

    >>> import keras, scipy.stats
    >>> @keras.saving.register_keras_serializable("example")
    ... class Half(keras.initializers.Initializer):
    ...     def __call__(self, shape, dtype=None):
    ...         return keras.ops.full(shape, 0.5, dtype or keras.config.floatx())
    >>> @expect(Half)
    ... def half(initializer, shape):
    ...     return lambda values: (values == 0.5).all()
    >>> from keras_initkit.testing import check_initializer
    >>> check_initializer(Half())
    """
    default = tuple(shapes) == SHAPES

    def register(function: Callable[[Any, Shape], Declared]) -> Callable[[Any, Shape], Declared]:
        TABLE[initializer_class] = Expectation(
            function,
            tuple(shapes),
            tuple(fan_shapes if fan_shapes is not None else FAN_SHAPES if default else shapes),
            small,
            tuple(rejects),
            tuple(zero_sized if zero_sized is not None else _without_elements(small)),
            dict(deviations or {}),
        )
        return function

    return register


def _without_elements(small: Shape) -> tuple[Shape, ...]:
    if len(small) == 2:
        return ((0, 4), (4, 0))
    return ((0,),) if len(small) == 1 else ((*small[:-2], 0, small[-1]),)


@dataclass(frozen=True)
class Orthogonal:
    """Predicate: the kernel, flattened to (prod(shape[:-1]), shape[-1]), has orthogonal rows or columns.

        W^T W = gain^2 I   (as many rows as columns, or more)      W W^T = gain^2 I   (fewer)

    Args:
        gain: the singular values.
        blocks: how many such matrices stand side by side along the last axis (4 gates in an LSTM kernel).

    >>> Orthogonal(gain=2.0)(2 * np.eye(3))
    >>> Orthogonal()(np.ones((3, 3)))
    Traceback (most recent call last):
    ...
    AssertionError: got a Gram matrix up to 3 from 1^2 I (block 1 of 1), expected 0.0001 at most
    """

    gain: float = 1.0
    blocks: int = 1
    # A uniformly distributed (Haar) orthogonal matrix has diagonal elements of either sign, independently:
    # what `sign_symmetry` tests.
    signs_are_symmetric = True

    def matrices(self, values: np.ndarray) -> list[np.ndarray]:
        """The blocks, each as a matrix."""
        return np.split(values.reshape(-1, values.shape[-1]), self.blocks, axis=1)

    def __call__(self, values: np.ndarray) -> None:
        """Raises an `AssertionError` for values that are not orthogonal."""
        for number, matrix in enumerate(self.matrices(values), 1):
            gram = matrix.T @ matrix if len(matrix) >= matrix.shape[1] else matrix @ matrix.T
            error = np.abs(gram - self.gain**2 * np.eye(len(gram))).max(initial=0.0)
            # Float32 QR is good to about 1e-6; a half-precision one to 1e-3.
            tolerance = 1e-4 * max(self.gain**2, 1e-30)
            if not error <= tolerance:
                raise AssertionError(
                    f"got a Gram matrix up to {error:.2g} from {self.gain:g}^2 I (block {number} of {self.blocks}), "
                    f"expected {tolerance:.2g} at most"
                )
