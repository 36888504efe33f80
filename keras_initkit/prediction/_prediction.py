"""What theory expects of a model's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._tap import Tap


class Prediction(Mapping[Tap, Expected]):
    """A read-only dictionary of what is expected, by tap.

    Args:
        expected: mean and variance by tap.
        unpredicted: by the path of each layer that cannot be predicted, the reason.
    """

    def __init__(self, expected: Mapping[Tap, Expected], unpredicted: Mapping[str, str]):
        self._expected, self.unpredicted = dict(expected), dict(unpredicted)

    def __getitem__(self, tap: Tap) -> Expected:
        return self._expected[tap]

    def __iter__(self) -> Iterator[Tap]:
        return iter(self._expected)

    def __len__(self) -> int:
        return len(self._expected)
