"""Statistics of a model's inputs, from which prediction starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._signals import Signal
from keras_initkit.structure._calls import has_graph
from keras_initkit.structure._graph import Tensor

_INTEGERS = 2**20


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Statistics of an input, from which `predict` starts.

    Args:
        mean: Float. Mean of all elements.
        variance: Float. Variance of all elements.
        examples: Integer. Number of examples in a batch, where it is known.
        same: Autocorrelation $E[x_a x_b]$ of two positions of one example, by their lag. `None`: positions are
            independent.
        other: The same for two different examples. `None`: examples are independent.
        gaussian: Boolean. Whether the elements are Gaussian; otherwise an activation on the input is not predicted.
        integers: Array of the integers that the input holds: masks, and indices of rows, are read from it. `None`:
            masks let everything through, and indices are random.

    Example:

    >>> x = np.random.default_rng(0).normal(1.0, 2.0, (4096, 8))
    >>> moments = InputMoments.from_array(x)
    >>> round(moments.mean), round(moments.variance), moments.examples
    (1, 4, 4096)
    """

    mean: float = 0.0
    variance: float = 1.0
    examples: int | None = None
    same: Autocorrelation | None = None
    other: Autocorrelation | None = None
    gaussian: bool = False
    integers: np.ndarray | None = None

    def __post_init__(self) -> None:
        fine = all(isinstance(v, Real) and math.isfinite(v) for v in (self.mean, self.variance))
        if not fine or self.variance < 0:
            raise ValueError(
                f"input_moments: got mean {self.mean!r} and variance {self.variance!r}, "
                "expected finite numbers and a variance of 0 or more."
            )

    @classmethod
    def from_array(cls, array: Any) -> InputMoments:
        """Measures a batch of real data: mean, variance, and correlations between positions and between examples.

        Args:
            array: Array or tensor of shape `(examples, *positions, units)`.

        Raises:
            ValueError: If it has no units or no examples, or is not finite.
        """
        x = to_numpy(array) if keras.ops.is_tensor(array) else np.asarray(array)
        if x.ndim < 2 or not x.size or not np.issubdtype(x.dtype, np.number):
            raise ValueError(
                f"array: got shape {x.shape} of {x.dtype}, expected numbers of shape (examples, *positions, units)."
            )
        integers = x if np.issubdtype(x.dtype, np.integer) and x.size <= _INTEGERS else None
        x = x.astype("float64")
        if not np.isfinite(x).all():
            raise ValueError("array: got NaN or infinity, expected finite numbers.")
        examples = len(x)
        own = np.sum([products(example) for example in x], axis=0)
        total = products(x.sum(axis=0))
        pairs = max(examples * (examples - 1), 1)
        axes = x.ndim - 2
        other = (
            autocorrelation((total - own) / pairs, x.shape[1:-1])
            if examples > 1
            else Autocorrelation.white(0.0, 0.0, axes)
        )
        same = autocorrelation(own / examples, x.shape[1:-1])
        return cls(float(x.mean()), float(x.var()), examples, same, other, integers=integers)

    of = from_array  # its name until 0.1

    def to_signal(self, tensor: Tensor) -> Signal:
        """Returns the signal of an input that holds such data."""
        axes, square = len(tensor.shape) - 2, self.mean**2
        same = self.same if self.same is not None else Autocorrelation.white(self.variance + square, square, axes)
        other = self.other if self.other is not None else Autocorrelation.white(square, square, axes)
        root = frozenset({("input", tensor.number)})
        return Signal(self.mean, self.variance + square, tensor.shape[1:-1], same, other, self.gaussian, sources=root)


def products(x: np.ndarray) -> np.ndarray:
    """Returns the mean of x_a x_{a+d} over positions a and units, for all lags d, by Fourier transforms."""
    size = x.shape[:-1]
    if not size:
        return np.asarray((x**2).mean())
    axes = tuple(range(len(size)))
    spectrum = np.abs(np.fft.fftn(x, [2 * n - 1 for n in size], axes)) ** 2
    sums = np.fft.fftshift(np.fft.ifftn(spectrum.mean(axis=-1)).real)
    lags = np.meshgrid(*(np.arange(1 - n, n) for n in size), indexing="ij", sparse=True)
    return sums / math.prod(n - np.abs(lag) for n, lag in zip(size, lags, strict=True))


def autocorrelation(by_lag: np.ndarray, size: Sequence[int]) -> Autocorrelation:
    """Keeps the mean products at all lags up to 64 positions, and the mean of the rest."""
    reach = [min(n - 1, 64) for n in size]
    near = by_lag[tuple(slice(n - 1 - r, n + r) for n, r in zip(size, reach, strict=True))]
    rest = by_lag.size - near.size
    far = (by_lag.sum() - near.sum()) / rest if rest else float(by_lag.mean())
    return Autocorrelation(near, np.full((1,) * len(size), far))


def _moments(given: Any) -> InputMoments:
    if given is None:
        return InputMoments(gaussian=True)
    if isinstance(given, InputMoments):
        return given
    if isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(v, Real) for v in given):
        return InputMoments(float(given[0]), float(given[1]))
    raise ValueError(
        f"input_moments: got {given!r}, expected None, a pair (mean, variance), or "
        "keras_initkit.prediction.InputMoments."
    )


def resolve_moments(model: keras.Model, tensors: Sequence[Tensor], given: Any) -> list[InputMoments]:
    """Returns the moments that `predict` was given, one for each of the model's inputs."""
    names = [symbol.name for symbol in model.inputs] if has_graph(model) else []
    count = len(tensors)
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"input_moments: got {unknown}, expected names of {model.name}'s inputs, {names}.")
        return [_moments(given.get(name)) for name in names]
    pair = isinstance(given, tuple | list) and all(isinstance(value, Real) for value in given)
    if isinstance(given, list | tuple) and not pair:
        if len(given) != count:
            raise ValueError(f"input_moments: got {len(given)} of them, expected one for each of the {count} inputs.")
        return [_moments(value) for value in given]
    return [_moments(given)] * count


def input_signals(model: keras.Model, tensors: Sequence[Tensor], given: Any) -> dict[int, Signal]:
    """Returns the signals of a model's inputs, by the tensors' numbers."""
    found = {}
    for tensor, moments in zip(tensors, resolve_moments(model, tensors, given), strict=True):
        axes = len(tensor.shape) - 2
        if moments.same is not None and moments.same.axes != axes:
            raise ValueError(
                f"input_moments: got moments of data with {moments.same.axes} axes of positions, expected {axes}: "
                f"{model.name} takes an input of shape {tensor.shape}."
            )
        found[tensor.number] = moments.to_signal(tensor)
    return found


def number_of_examples(model: keras.Model, tensors: Sequence[Tensor], given: Any) -> int | None:
    """Returns the batch size from the inputs' moments or the model's shapes; `None` where neither has one."""
    known = [moments.examples for moments in resolve_moments(model, tensors, given)] + [
        tensor.shape[0] for tensor in tensors
    ]
    return next((int(number) for number in known if number), None)
