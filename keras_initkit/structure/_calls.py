"""The graph of a model: the calls of its layers, in the order of the forward pass."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras

from keras_initkit._compat import inputs_structure
from keras_initkit.structure._graph import Call
from keras_initkit.structure._recorder import Recorder

FREE_DIMENSION = 16
_FREE_BATCH = 2

_TRACES: ContextVar[dict[int, list[Call]] | None] = ContextVar("traces", default=None)


@contextlib.contextmanager
def traced_once() -> Iterator[None]:
    """Within it, a model is traced when `calls` first asks, and not again. Also a decorator."""
    if _TRACES.get() is not None:
        yield
        return
    token = _TRACES.set({})
    try:
        yield
    finally:
        _TRACES.reset(token)


def calls(model: keras.Model, x: Any = None) -> list[Call]:
    """Returns every call in a model, in the order of its forward pass.

    The model runs on symbolic tensors of a fixed shape: that of `x`, or of its inputs, where any number of examples is
    noted as `None` and other free sizes are 16. Composite layers (nested models, attention, layers of your own) are
    opened: the calls inside one stand before its own call; the last one is `model` itself. A composite whose `call`
    cannot run on symbolic tensors is a single call, which says why. A layer that is used in several places has one
    `Call` for each. `InputLayer`s have none.

    Args:
        model: A built Keras model.
        x: Inputs as the model takes them, of which only shapes and dtypes are read; a subclassed model that was
            built by calling it on several inputs needs them.

    Raises:
        ValueError: If the model is not built, has no `call`, or does not run on symbolic tensors.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.ReLU(name="b")])
    >>> [(call.path, call.index, call.outputs[0].shape) for call in calls(model)]
    [('a', 0, (None, 3)), ('b', 0, (None, 3)), ('model', 0, (None, 3))]
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: got {reprlib.repr(model)}, expected a Keras model.")
    kept = _TRACES.get()
    if kept is not None and id(model) in kept:
        return kept[id(model)]
    found = _trace(model, x)
    if kept is not None:
        kept[id(model)] = found
    return found


def _trace(model: keras.Model, x: Any) -> list[Call]:
    if not model.built:
        raise ValueError(
            f"model: got {model.name}, which is not built, expected a built model. "
            "Start it with keras.Input(shape), call it on data, or build() it."
        )
    problem: Exception | None = None
    for symbols in _arguments(model, x):
        recorder = Recorder(model, _FREE_BATCH if x is None else None)
        try:
            recorder.run(symbols)
        except Exception as error:  # whatever a user's `call` raises on symbolic tensors
            problem = problem or error
        else:
            return recorder.calls
    raise ValueError(
        f"model: got {model.name} of class {type(model).__name__}, which does not run on symbolic tensors "
        f"({type(problem).__name__}: {str(problem).partition(chr(10))[0]}), expected a model that does. "
        "keras_initkit.probe measures any model."
    ) from problem


def has_graph(model: keras.Model) -> bool:
    """Whether a model was made of symbolic inputs and outputs."""
    try:  # a Sequential model that is not built raises, a subclassed one has no such attribute
        return bool(model.inputs) and bool(model.outputs)
    except (AttributeError, ValueError):
        return False


def _arguments(model: keras.Model, x: Any) -> Iterator[Any]:
    """Yields symbolic inputs, as good guesses as there are."""
    if has_graph(model):
        structure = inputs_structure(model)
        given = [None] * len(model.inputs) if x is None else keras.tree.flatten(x)
        for free in (FREE_DIMENSION, None):  # a nested model may want other sizes than these
            symbols = [
                keras.KerasTensor(_sized(symbol.shape, free) if each is None else each.shape, symbol.dtype)
                for symbol, each in zip(model.inputs, given, strict=True)
            ]
            yield symbols[0] if structure is None else keras.tree.pack_sequence_as(structure, symbols)
    elif x is not None:
        yield keras.tree.map_structure(
            lambda each: keras.KerasTensor(each.shape, keras.backend.standardize_dtype(each.dtype)), x
        )
    else:
        shape = (model.get_build_config() or {}).get("input_shape")
        for dtype in ("float32", "int32") if shape else ():
            yield keras.tree.map_shape_structure(
                lambda each, d=dtype: keras.KerasTensor(_sized((None, *each[1:])), d), shape
            )


def _sized(shape: Any, free: int | None = FREE_DIMENSION) -> tuple[int | None, ...]:
    batch, *rest = shape
    return (batch or _FREE_BATCH, *(size or free for size in rest))
