"""A dictionary whose keys are variables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import keras

Value = TypeVar("Value")


class VariableMap(Mapping[keras.Variable, Value]):
    """A read-only dictionary with variables as keys, found by identity: `fans[layer.kernel]`.

    A Keras variable cannot be the key of a `dict` (its `==` compares values), and its path is not unique: two
    nested models may each have a `dense/kernel`. Of two pairs for one variable, the first counts.
    """

    def __init__(self, items: Iterable[tuple[keras.Variable, Value]] = ()):
        self._items: dict[int, tuple[keras.Variable, Value]] = {}
        for variable, value in items:
            self._items.setdefault(id(variable), (variable, value))

    def __getitem__(self, variable: keras.Variable) -> Value:
        if id(variable) not in self._items:
            raise KeyError(getattr(variable, "path", variable))
        return self._items[id(variable)][1]

    def __iter__(self) -> Iterator[keras.Variable]:
        return (variable for variable, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, VariableMap):
            return NotImplemented
        mine, others = ({key: value for key, (_, value) in each._items.items()} for each in (self, other))
        return mine == others

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "{" + ", ".join(f"<{variable.path}>: {value!r}" for variable, value in self.items()) + "}"
