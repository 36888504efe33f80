"""Methods of layers and optimizers that are wrapped for a while, on the instance alone."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_initkit._threads import LOCK
from keras_initkit.structure._layer_kinds import quantization_mode

_MISSING = object()
Wrapper = Callable[..., Any]  # called in place of a method, with that method before the arguments


@dataclass(eq=False)
class _Entry:
    """An attribute that is replaced, and what it was before."""

    owner: Any
    name: str
    value: Any
    before: Any


_entries: list[_Entry] = []  # those in force, in the order in which they were made


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replaces `owner.name` by `value` for a while: on the instance alone, past the attribute tracking of Keras.

    Several may end in any order; a value that somebody else has put over the attribute in the meantime stays.
    """
    attributes = vars(owner)
    with LOCK:
        entry = _Entry(owner, name, value, attributes.get(name, _MISSING))
        _entries.append(entry)
        attributes[name] = value
    try:
        yield
    finally:
        with LOCK:
            later = _entries[_entries.index(entry) + 1 :]
            _entries.remove(entry)
            above = next((e for e in later if e.owner is owner and e.name == name and e.before is value), None)
            if above is not None:
                above.before = entry.before
            elif attributes.get(name, _MISSING) is value:
                if entry.before is _MISSING:
                    del attributes[name]
                else:
                    attributes[name] = entry.before


def wrap_call(layer: keras.Layer, wrapper: Wrapper) -> contextlib.AbstractContextManager[None]:
    """Has `wrapper(call, *args, **kwargs)` run in place of `layer.call(*args, **kwargs)` for a while.

    Of a quantized layer, in place of the `quantized_call` that Keras then runs.
    """
    return _wrapped(layer, "call" if quantization_mode(layer) is None else "quantized_call", wrapper)


def wrap_activation(layer: Any, wrapper: Wrapper) -> contextlib.AbstractContextManager[None]:
    """Has `wrapper(activation, x)` run in place of `layer.activation(x)` for a while."""
    return _wrapped(layer, "activation", wrapper)


def wrap_optimizer(optimizer: Any, wrapper: Wrapper) -> contextlib.AbstractContextManager[None]:
    """Has `wrapper(method, *args, **kwargs)` run for a while in place of the method that is given the gradients.

    That is `apply(grads, trainable_variables)` of a Keras optimizer; on JAX `stateless_apply(optimizer_variables,
    grads, trainable_variables)`; of an optimizer of PyTorch `step()`.
    """
    method = "stateless_apply" if keras.backend.backend() == "jax" else "apply"
    return _wrapped(optimizer, method if isinstance(optimizer, keras.optimizers.Optimizer) else "step", wrapper)


def _wrapped(owner: Any, name: str, wrapper: Wrapper) -> contextlib.AbstractContextManager[None]:
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    return replaced(owner, name, method)
