"""The result of a prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._tap import Tap


class Prediction(Mapping[Tap, Expected]):
    """A read-only dictionary from each tap to the mean and variance that theory expects there.

    Args:
        expected: Mapping from `Tap` to `Expected`.
        unpredicted: Mapping from the path of each layer that cannot be predicted to the reason.
    """

    def __init__(self, expected: Mapping[Tap, Expected], unpredicted: Mapping[str, str]):
        self._expected = dict(expected)
        self.unpredicted: dict[str, str] = dict(unpredicted)

    def __getitem__(self, tap: Tap) -> Expected:
        return self._expected[tap]

    def __iter__(self) -> Iterator[Tap]:
        return iter(self._expected)

    def __len__(self) -> int:
        return len(self._expected)
