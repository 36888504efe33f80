"""Checks of one draw: its shape, dtype, precision, and the distribution or structure of its values."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_initkit.testing import _significance
from keras_initkit.testing._subject import ConformanceError, NotApplicable, Subject, to_numpy

DTYPES = ("float16", "bfloat16", "float32", "float64")
# Rounding once to a half precision changes a value by this factor at most (1 % for a float32 that is not quite
# the same each time); two roundings, of a half-precision draw and of its product with a scale, change it more.
HALF_PRECISIONS = {"float16": 1.01 * 2.0**-11, "bfloat16": 1.01 * 2.0**-8}


def shapes(subject: Subject) -> None:
    """The result has the shape that was asked for; a negative size or a shape of a wrong rank is an error."""
    initializer = subject.with_seed(1)
    for shape in (subject.known.small, list(subject.known.small)):
        got = tuple(initializer(shape).shape)
        if got != tuple(shape):
            raise ConformanceError(f"got values of shape {got}, expected {tuple(shape)}; return the shape asked for.")
    negative = (-1, *subject.known.small[1:])
    for shape, kinds in [(negative, Exception)] + [(shape, ValueError) for shape in subject.known.rejects]:
        try:
            initializer(shape)
        except kinds:
            continue
        except Exception as error:
            raise ConformanceError(f"got {error!r} for shape {shape}, expected a ValueError; raise one.") from error
        raise ConformanceError(
            f"got values for shape {shape}, expected a ValueError; say in it which shapes are allowed."
        )


def zero_sized(subject: Subject) -> None:
    """A shape without elements gives an empty tensor of that shape."""
    if not subject.known.zero_sized:
        raise NotApplicable("no shape without elements has a meaning for it")
    for shape in subject.known.zero_sized:
        got = tuple(subject.with_seed(1)(shape).shape)
        if got != shape:
            raise ConformanceError(f"got shape {got}, expected {shape}; let a size of 0 through.")


def dtypes(subject: Subject) -> None:
    """The result has the dtype that was asked for, and Keras' default dtype if none was."""
    initializer = subject.with_seed(1)
    for dtype in (None, *DTYPES):
        # What the backend has under this name: JAX gives float32 for float64, unless told otherwise.
        expected = keras.backend.standardize_dtype(keras.ops.zeros((), dtype or keras.config.floatx()).dtype)
        got = keras.backend.standardize_dtype(initializer(subject.known.small, dtype).dtype)
        if got != expected:
            raise ConformanceError(f"got {got} for dtype={dtype!r}, expected {expected}; cast the values at the end.")


def finite(subject: Subject) -> None:
    """No value is NaN or infinite, in any dtype."""
    for dtype in DTYPES:
        for shape in (subject.known.small, *subject.known.shapes):
            wrong = int((~np.isfinite(to_numpy(subject.with_seed(1)(shape, dtype)))).sum())
            if wrong:
                raise ConformanceError(
                    f"got {wrong} NaN or infinite values of {math.prod(shape)} for shape {shape} in {dtype}, expected "
                    "none; look for a logarithm or a division by 0, or an overflow of the dtype."
                )


def precision(subject: Subject) -> None:
    """Values are made in float32 at least: a half-precision draw is the float32 draw of the same seed, rounded.

    And a float32 draw from a continuous distribution hardly repeats a value; one that was made in half precision
    has at most 2**16 different ones.
    """
    for dtype, rounding in HALF_PRECISIONS.items():
        shape = subject.known.shapes[0]
        got, wide = to_numpy(subject.with_seed(1)(shape, dtype)), subject.sample(shape)
        wrong = int((np.abs(got - wide) > rounding * np.abs(wide) + 2.0**-24).sum())  # and float16's smallest step
        if wrong:
            raise ConformanceError(
                f"got {wrong} of {wide.size} values in {dtype} that are not the float32 values of the same seed, "
                "rounded; draw in float32 and cast."
            )
    for shape in subject.known.shapes:
        declared = subject.declared(shape)
        if hasattr(declared, "pdf") and _resolved(declared, math.prod(shape)):
            distinct = np.unique(subject.sample(shape)).size / math.prod(shape)
            if distinct < 0.9:
                raise ConformanceError(
                    f"got {distinct:.0%} different values in a float32 draw of shape {shape}, expected over 90 %: its "
                    "distribution is continuous; draw in float32, not in half precision, each element on its own."
                )


def _resolved(declared: Any, size: int) -> bool:
    """Whether float32 has so many numbers within a standard deviation that `size` draws hardly meet."""
    return 4 * size * float(np.spacing(np.float32(abs(declared.mean()) + declared.std()))) < declared.std()


def mean(subject: Subject) -> None:
    """The sample mean is the declared mean, within sampling error."""
    for shape, declared in subject.distributions(subject.known.shapes):
        values = subject.sample(shape)
        if not _significance.mean_p_value(values, declared) >= _significance.LEVEL_PER_CHECK / len(
            subject.known.shapes
        ):
            raise ConformanceError(
                f"got a mean of {values.mean():.4g} for shape {shape}, expected {declared.mean():.4g} +- "
                f"{declared.std() / math.sqrt(values.size):.2g} (standard error); center the draw."
            )


def _stddev(subject: Subject, all_shapes: tuple[tuple[int, ...], ...], hint: str) -> None:
    for shape, declared in subject.distributions(all_shapes):
        excess = float(declared.stats("k"))
        if not math.isfinite(excess):
            raise NotApplicable("its distribution has no fourth moment, hence no standard error of the variance")
        values = subject.sample(shape)
        if not _significance.stddev_p_value(values, declared) >= _significance.LEVEL_PER_CHECK / len(all_shapes):
            error = declared.std() * math.sqrt((excess + 2) / (4 * values.size))
            raise ConformanceError(
                f"got a standard deviation of {values.std():.5g} for shape {shape}, expected {declared.std():.5g} +- "
                f"{error:.2g} (standard error), ratio {values.std() / declared.std():.4f}; {hint}"
            )


def stddev(subject: Subject) -> None:
    """The sample standard deviation is the declared one, within sampling error."""
    _stddev(
        subject,
        subject.known.shapes,
        "0.88 is an uncorrected truncation at two standard deviations, 0.58 a uniform limit without sqrt(3).",
    )


def fan_mode(subject: Subject) -> None:
    """The standard deviation follows the declared fan in tall, wide and convolution kernels."""
    _stddev(
        subject,
        subject.known.fan_shapes,
        "compare the ratio with sqrt(fan_out / fan_in) (fans swapped) and with sqrt(receptive field) (forgotten).",
    )


def distribution(subject: Subject) -> None:
    """The values follow the declared distribution (Kolmogorov-Smirnov)."""
    for shape, declared in subject.distributions(subject.known.shapes):
        p_value = _significance.distribution_p_value(subject.sample(shape), declared)
        if not p_value >= _significance.LEVEL_PER_CHECK / len(subject.known.shapes):
            raise ConformanceError(
                f"got values for shape {shape} whose Kolmogorov-Smirnov p-value under the declared distribution is "
                f"{p_value:.2g}, expected {_significance.LEVEL_PER_CHECK:g} or more; compare their histogram with its "
                "density, and see that elements are independent."
            )


def truncation(subject: Subject) -> None:
    """No value lies outside the declared distribution's support."""
    bounded = False
    for shape, declared in subject.distributions(subject.known.shapes):
        low, high = declared.support()
        if not math.isfinite(high - low):
            continue
        bounded, values, rounding = True, subject.sample(shape), 1e-6 * (high - low)
        if values.min() < low - rounding or values.max() > high + rounding:
            raise ConformanceError(
                f"got values from {values.min():.5g} to {values.max():.5g} for shape {shape}, expected all within "
                f"[{low:.5g}, {high:.5g}]; truncate the draw there."
            )
    if not bounded:
        raise NotApplicable("its distribution is not bounded")


def structure(subject: Subject) -> None:
    """The values satisfy the declared predicate, in every shape."""
    predicates = [
        (shape, declared)
        for shape in (subject.known.small, *subject.known.shapes)
        if not hasattr(declared := subject.declared(shape), "cdf")
    ]
    if not predicates:
        raise NotApplicable("its values are declared by a distribution, not by a predicate")
    for shape, predicate in predicates:
        try:
            accepted = predicate(subject.sample(shape))
        except AssertionError as error:
            raise ConformanceError(f"for shape {shape}: {error}.") from error
        if accepted is not None and not accepted:
            raise ConformanceError(f"got values of shape {shape} that the declared predicate does not accept.")


def sign_symmetry(subject: Subject) -> None:
    """Diagonal elements of a random orthogonal matrix have either sign: Q of a QR alone has not."""
    predicate = subject.declared(subject.known.small)
    if not getattr(predicate, "signs_are_symmetric", False):
        raise NotApplicable("its declared predicate says nothing about signs")
    diagonals = [
        np.diagonal(matrix)
        for seed in range(64)
        for matrix in predicate.matrices(subject.sample(subject.known.small, seed))
    ]
    values = np.concatenate(diagonals)
    if not _significance.sign_p_value(values) >= _significance.LEVEL_PER_CHECK:
        raise ConformanceError(
            f"got {(values > 0).mean():.0%} positive elements on the diagonals of 64 draws, expected half; multiply "
            "the columns of Q by the signs of R's diagonal, or the matrix is not uniformly distributed."
        )
