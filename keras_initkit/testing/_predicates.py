"""Predicates on the values of a draw: what an expectation returns where elements are not independent draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_initkit.testing import _significance


@dataclass(frozen=True)
class Equals:
    """Predicate: the values are these (an array or one number), to a rounding of float32.

    Example:

    >>> Equals(0.1)(np.full(3, np.float32(0.1)))
    >>> Equals(np.eye(2))(np.ones((2, 2)))
    Traceback (most recent call last):
    ...
    AssertionError: got 1 at (0, 1), expected 0; 2 of 4 values differ
    """

    expected: Any
    # No draw: two seeds may well give the same.
    is_fixed = True

    def __call__(self, values: np.ndarray) -> None:
        """Raises an `AssertionError` for other values."""
        expected = np.broadcast_to(np.asarray(self.expected, "float64"), values.shape)
        wrong = ~(np.abs(values - expected) <= 2.0**-23 * np.abs(expected))
        if wrong.any():
            first = tuple(int(index) for index in np.argwhere(wrong)[0])
            raise AssertionError(
                f"got {values[first]:.7g} at {first}, expected {expected[first]:.7g}; "
                f"{wrong.sum()} of {wrong.size} values differ"
            )


@dataclass(frozen=True)
class Orthogonal:
    r"""Predicate: the kernel, flattened to `(prod(shape[:-1]), shape[-1])`, has orthogonal rows or columns.

    .. math::

        W^T W = \text{gain}^2 I \text{ (as many rows as columns, or more), else } W W^T = \text{gain}^2 I

    Args:
        gain: Float. The singular values.
        blocks: Integer. Number of such matrices side by side along the last axis (4 gates in an LSTM kernel).
        out_axes: Tuple of integers. The axes that make up the matrix' columns, if not the last one.

    Example:

    >>> Orthogonal(gain=2.0)(2 * np.eye(3))
    >>> Orthogonal()(np.ones((3, 3)))
    Traceback (most recent call last):
    ...
    AssertionError: got a Gram matrix up to 3 from 1^2 I (block 1 of 1), expected 0.0001 at most
    """

    gain: float = 1.0
    blocks: int = 1
    out_axes: tuple[int, ...] = (-1,)
    # A uniformly distributed (Haar) orthogonal matrix has diagonal elements of either sign, independently:
    # what `sign_symmetry` tests.
    signs_are_symmetric = True

    def matrices(self, values: np.ndarray) -> list[np.ndarray]:
        """Returns the blocks, each as a matrix."""
        count = len(self.out_axes)
        values = np.moveaxis(values, self.out_axes, range(-count, 0))
        return np.split(values.reshape(-1, math.prod(values.shape[-count:])), self.blocks, axis=1)

    def __call__(self, values: np.ndarray) -> None:
        """Raises an `AssertionError` for values that are not orthogonal."""
        for number, matrix in enumerate(self.matrices(values), 1):
            self.check(matrix, f"block {number} of {self.blocks}")

    def check(self, matrix: np.ndarray, where: str) -> None:
        """Raises an `AssertionError` for a matrix that is not orthogonal (unitary, if it is complex)."""
        if len(matrix) < matrix.shape[1]:
            matrix = matrix.T
        gram = matrix.conj().T @ matrix
        error = np.abs(gram - self.gain**2 * np.eye(len(gram))).max(initial=0.0)
        # Float32 QR is good to about 1e-6; a half-precision one to 1e-3.
        tolerance = 1e-4 * max(self.gain**2, 1e-30)
        if not error <= tolerance:
            raise AssertionError(
                f"got a Gram matrix up to {error:.2g} from {self.gain:g}^2 I ({where}), "
                f"expected {tolerance:.2g} at most"
            )


@dataclass(frozen=True)
class DifferentBlocks(Orthogonal):
    """Predicate: orthogonal blocks, each drawn independently."""

    def __call__(self, values: np.ndarray) -> None:
        """Raises an `AssertionError` for a block that is not orthogonal or equals another."""
        super().__call__(values)
        blocks = {matrix.tobytes() for matrix in self.matrices(values)}
        # Signs are all that a row or a column of one element has.
        if len(blocks) < self.blocks and min(self.matrices(values)[0].shape) > 1:
            raise AssertionError(f"got {len(blocks)} different blocks, expected {self.blocks}")


@dataclass(frozen=True)
class DeltaOrthogonal(Orthogonal):
    """Predicate: an orthogonal matrix at the center of a convolution kernel, zeros elsewhere."""

    def matrices(self, values: np.ndarray) -> list[np.ndarray]:
        """The matrix at the tap that `padding="same"` puts on the pixel itself."""
        return [values[tuple((size - 1) // 2 for size in values.shape[:-2])]]

    def __call__(self, values: np.ndarray) -> None:
        """Raises an `AssertionError` for other values."""
        super().__call__(values)
        elsewhere = np.count_nonzero(values) - np.count_nonzero(self.matrices(values)[0])
        if elsewhere:
            raise AssertionError(f"got {elsewhere} values other than 0 beside the center, expected none")


@dataclass(frozen=True)
class ConvOrthogonal(Orthogonal):
    """Predicate: a convolution kernel whose circular convolution keeps the norm of every image, with every tap used.

    A convolution multiplies each frequency of the image by a matrix, the kernel's Fourier transform, and keeps
    norms if each of these is unitary. K^H K is a trigonometric polynomial of degree size - 1 along each axis,
    so that 2 size - 1 frequencies tell for all.
    """

    def matrices(self, values: np.ndarray) -> list[np.ndarray]:
        """The matrix at frequency 0."""
        return [values.sum(axis=tuple(range(values.ndim - 2)))]

    def __call__(self, values: np.ndarray) -> None:
        """Raises an `AssertionError` for other values."""
        field = values.shape[:-2]
        spectrum = np.fft.fftn(values, s=[2 * size - 1 for size in field], axes=range(len(field)))
        for frequency in np.ndindex(spectrum.shape[:-2]):
            self.check(spectrum[frequency], f"frequency {frequency}")
        # With one channel a factor's projection is all or nothing, and the mass stays on one tap.
        unused = int((np.square(values).sum(axis=(-2, -1)) == 0).sum())
        if unused and min(values.shape[-2:]) > 1:
            raise AssertionError(f"got {unused} taps that are 0, expected none")


@dataclass(frozen=True)
class Copies:
    """Predicate: copies of one kernel side by side along the last axis, each as declared (None: anything)."""

    copies: int
    declared: Any = None

    @property
    def is_fixed(self) -> bool:
        """Whether the kernel itself is."""
        return getattr(self.declared, "is_fixed", False)

    def __call__(self, values: np.ndarray) -> None:
        """Raises an `AssertionError` for other values."""
        first, *others = np.split(values, self.copies, axis=-1)
        unlike = sum(not np.array_equal(first, other) for other in others)
        if unlike:
            raise AssertionError(f"got {unlike} of {len(others)} copies unlike the first, expected none")
        if hasattr(self.declared, "cdf"):
            assert_drawn(first, self.declared)
        elif self.declared is not None and self.declared(first) is False:
            raise AssertionError("got a first copy that its declared predicate does not accept")


def assert_drawn(values: np.ndarray, distribution: Any) -> None:
    """Raises an `AssertionError` for values that are not independent draws of the distribution.

    Fewer than 10,000 are not judged: the tests are approximations for large samples.
    """
    if values.size < 10_000:
        return
    for statistic, p_value in (
        ("mean", _significance.mean_p_value),
        ("standard deviation", _significance.stddev_p_value),
        ("Kolmogorov-Smirnov distance", _significance.distribution_p_value),
    ):
        if not p_value(values, distribution) >= _significance.LEVEL_IN_PREDICATE:
            raise AssertionError(
                f"got {values.size} values of mean {values.mean():.4g} and standard deviation {values.std():.5g}, "
                f"expected {distribution.mean():.4g} and {distribution.std():.5g}; their {statistic} does not fit the "
                "declared distribution"
            )
