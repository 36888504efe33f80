"""What stands in for a layer's weights while the model runs on symbolic tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_initkit._compat import TRACKERS, VARIABLE


class NotTraceableError(Exception):
    """Raised where a call would change the model; the message says how, as a clause."""


@contextlib.contextmanager
def weights_replaced(layer: keras.Layer, note: Callable[[Any, keras.Variable], Any]) -> Iterator[None]:
    """Has symbolic tensors in place of the variables that a layer holds as attributes, in lists and dictionaries.

    `layer.call` then leaves a graph of what it does with them: `ops.transpose(self.kernel)` is a call as well.

    Args:
        layer: A built Keras layer.
        note: Function that is told of each symbolic tensor and its variable.
    """
    stand_ins: dict[int, Any] = {}

    def stand_in(variable: keras.Variable) -> Any:
        if id(variable) not in stand_ins:
            dtype = keras.backend.standardize_dtype(variable.dtype)
            if keras.backend.is_float_dtype(dtype) and keras.backend.is_float_dtype(layer.compute_dtype):
                dtype = layer.compute_dtype
            stand_ins[id(variable)] = WeightSymbol(variable, dtype)
            note(stand_ins[id(variable)], variable)
        return stand_ins[id(variable)]

    attributes = vars(layer)
    changed = {name: _map_variables(value, stand_in) for name, value in attributes.items() if name not in TRACKERS}
    kept = {name: attributes[name] for name, value in changed.items() if value is not attributes[name]}
    attributes.update({name: changed[name] for name in kept})
    try:
        yield
    finally:
        attributes.update(kept)


class WeightSymbol(keras.KerasTensor):
    """A symbolic tensor in the place of a variable, with what `call` may ask of one."""

    def __init__(self, variable: keras.Variable, dtype: str):
        super().__init__(variable.shape, dtype)
        self.name, self.path, self.trainable = variable.name, variable.path, variable.trainable

    @property
    def value(self) -> keras.KerasTensor:
        return self

    def __getitem__(self, key: Any) -> Any:
        """Returns rows or parts; Keras infers no shape of a bare slice, nor of an array of indices."""
        if isinstance(key, slice):
            return super().__getitem__((key,))
        if getattr(key, "shape", ()):
            return keras.ops.take(self, key, axis=0)
        return super().__getitem__(key)

    def assign(self, value: Any) -> Any:
        """Leaves the variable as it is, as in a `keras.StatelessScope`."""
        return value


def _map_variables(value: Any, change: Callable[[keras.Variable], Any]) -> Any:
    """Returns `value` with its variables changed; itself, where there are none."""
    if isinstance(value, VARIABLE):
        return change(value)
    if isinstance(value, dict):
        found = {key: _map_variables(each, change) for key, each in value.items()}
        return found if any(found[key] is not value[key] for key in found) else value
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        each_changed = [_map_variables(each, change) for each in value]
        same = all(new is old for new, old in zip(each_changed, value, strict=True))
        return value if same else type(value)(each_changed) if isinstance(value, tuple) else each_changed
    return value


@contextlib.contextmanager
def nothing_built(layers: list[keras.Layer]) -> Iterator[None]:
    """Has layers that are not built refuse to make weights, and forget that they were built."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise NotTraceableError("a part of it is not built")

    unbuilt = [(layer, dict(vars(layer))) for layer in layers if not layer.built]
    held = [(value, list(value)) for _, attributes in unbuilt for value in attributes.values() if type(value) is list]
    for layer, _ in unbuilt:
        vars(layer)["add_weight"] = refuse
    try:
        yield
    finally:
        for layer, attributes in unbuilt:
            vars(layer).clear()
            vars(layer).update(attributes)
        for value, elements in held:
            value[:] = elements
