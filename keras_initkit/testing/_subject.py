"""The initializer under test, as the checks see it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_initkit import _arrays
from keras_initkit.testing.declarations._declare import TABLE, Declared, Expectation, Shape


class ConformanceError(AssertionError):
    """An initializer fails a check; the message says what was received, what was expected and what to do."""


class NotApplicable(Exception):
    """Raised by a check that does not apply to this initializer or on this backend."""


def name_of(initializer: Any) -> str:
    """The class's name with the arguments that are not defaults: `RandomNormal(stddev=1.0)`.

    Example:

    >>> import keras
    >>> name_of(keras.initializers.RandomNormal(stddev=1.0, seed=3))
    'RandomNormal(stddev=1.0)'
    """
    name = type(initializer).__name__
    try:
        config = initializer.get_config()
    except Exception:  # then that is for a check to report
        return name
    defaults = {key: parameter.default for key, parameter in inspect.signature(type(initializer)).parameters.items()}
    given = {k: v for k, v in config.items() if k != "seed" and k in defaults and v != defaults[k]}
    shown = {k: v["class_name"] if isinstance(v, dict) and "class_name" in v else repr(v) for k, v in given.items()}
    return f"{name}({', '.join(f'{k}={v}' for k, v in shown.items())})" if shown else name


class Subject:
    """An initializer and what is expected of it. The instance itself is never called if it has a seed.

    The checks draw from copies made by `from_config` with other seeds: their verdict is the same run
    after run, whatever the seed of the instance (None, an integer, a generator), and its generator, if it has
    one, is not advanced.
    """

    def __init__(self, initializer: Any, expected: Callable[[Shape], Declared] | None = None):
        known = TABLE.get(type(initializer))
        if expected is None and known is None:
            raise ValueError(
                f"expected: got None for {type(initializer).__name__}, which is not known. Pass a function from a "
                "shape to a frozen scipy.stats distribution or to a predicate on the values, or declare the class "
                "with keras_initkit.testing.expect."
            )
        self.initializer = initializer
        self.known: Expectation = (known or Expectation(lambda initializer, shape: None)).fitted(initializer)
        self._expected = expected
        self.arguments = tuple(inspect.signature(type(initializer)).parameters)
        self.name = name_of(initializer)
        self._samples: dict[tuple[Shape, int], np.ndarray] = {}

    def with_seed(self, seed: Any) -> Any:
        """A copy of the initializer with another seed; the initializer itself if it takes none."""
        if self.known.reseed is not None:
            return self.known.reseed(self.initializer, seed)
        if "seed" not in self.arguments:
            return self.initializer
        return type(self.initializer).from_config({**self.initializer.get_config(), "seed": seed})

    @property
    def is_random(self) -> bool:
        """Whether another seed gives other values. Biases of standard deviation 0 take a seed and are not random."""
        takes_seed = "seed" in self.arguments or self.known.reseed is not None
        return takes_seed and not getattr(self.declared(self.known.small), "is_fixed", False)

    def sample(self, shape: Shape, seed: int = 1) -> np.ndarray:
        """A float32 draw, as float64."""
        if (shape, seed) not in self._samples:
            self._samples[shape, seed] = to_numpy(self.with_seed(seed)(shape, "float32"))
        return self._samples[shape, seed]

    def declared(self, shape: Shape) -> Declared:
        """What the values of this shape should be: a frozen distribution or a predicate."""
        return self._expected(shape) if self._expected else self.known.declared(self.initializer, shape)

    def distributions(self, shapes: tuple[Shape, ...]) -> list[tuple[Shape, Any]]:
        """Each of the shapes that has a declared distribution, with it."""
        found = [(shape, declared) for shape in shapes if hasattr(declared := self.declared(shape), "cdf")]
        if not found:
            raise NotApplicable("its values are declared by a predicate, not by a distribution")
        return found

    def needs_seed(self) -> None:
        """Leaves a check that is about random draws."""
        if not self.is_random:
            raise NotApplicable("it draws nothing from a seed")


def to_numpy(values: Any) -> np.ndarray:
    """Returns a tensor of any dtype as a float64 array."""
    return _arrays.to_numpy(values).astype("float64")
