"""The graph of a model: the calls of its layers, in the order of the forward pass."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import keras

from keras_initkit._compat import describe_error
from keras_initkit.structure._graph import Call
from keras_initkit.structure._recorder import Recorder
from keras_initkit.structure._separate_parts import is_built, lacks_call, raise_without_call
from keras_initkit.structure._sublayers import sublayers, walk_layers

FREE_DIMENSION = 16
_FREE_BATCH = 11  # examples; a size that few other axes have


class _Trace(NamedTuple):
    """What a trace found, or why there is none. The model is held, as its identity must stay its own."""

    model: keras.Model
    built: int  # number of its layers that were built
    had_data: bool
    found: list[Call] | ValueError
    derived: dict[Callable, Any]  # what functions have made of `found`


Traces = dict[int, _Trace]  # by the model's identity
_TRACES: ContextVar[Traces | None] = ContextVar("traces", default=None)
_BATCH: ContextVar[int] = ContextVar("batch", default=_FREE_BATCH)
Derived = TypeVar("Derived")


@contextlib.contextmanager
def traced_once(kept: Traces | None = None) -> Iterator[None]:
    """Within it, a model is traced when `calls` first asks, and not again. Also a decorator.

    Args:
        kept: Dictionary. Where the traces are kept, for another time; by default they end with the context.
    """
    if _TRACES.get() is not None:
        yield
        return
    token = _TRACES.set({} if kept is None else kept)
    try:
        yield
    finally:
        _TRACES.reset(token)


@contextlib.contextmanager
def traced_for(examples: int) -> Iterator[None]:
    """Within it, models are traced anew, with a batch of this many examples where the number is free."""
    tokens = _TRACES.set({}), _BATCH.set(examples)
    try:
        yield
    finally:
        _TRACES.reset(tokens[0])
        _BATCH.reset(tokens[1])


def free_batch() -> int:
    """Returns the number of examples that traces are made for where it is free."""
    return _BATCH.get()


def calls(model: keras.Model, x: Any = None) -> list[Call]:
    """Returns every call in a model, in the order of its forward pass.

    The model runs on symbolic tensors of a fixed shape: that of `x`, or of its inputs, where any number of examples is
    noted as `None` and other free sizes are 16. Composite layers (nested models, attention, layers of your own) are
    opened: the calls inside one stand before its own call; the last one is `model` itself. A composite whose `call`
    cannot run on symbolic tensors is a single call, which says why. A layer that is used in several places has one
    `Call` for each. `InputLayer`s have none. The parts of a model without a `call` are traced one by one; the last call
    then has the inputs and outputs of all.

    Args:
        model: A built Keras model.
        x: Inputs as the model takes them, of which only shapes and dtypes are read; a subclassed model that was
            built by calling it on several inputs needs them.

    Raises:
        ValueError: If the model is not built, or does not run on symbolic tensors; if it has no `call`, and a part that
            it holds is not built.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.ReLU(name="b")])
    >>> [(call.path, call.index, call.outputs[0].shape) for call in calls(model)]
    [('a', 0, (None, 3)), ('b', 0, (None, 3)), ('model', 0, (None, 3))]
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: got {reprlib.repr(model)}, expected a Keras model.")
    kept = _TRACES.get()
    if kept is None or not is_built(model):
        return _trace(model, x)
    built = sum(layer.built for _, layer in walk_layers(model))
    trace = kept.get(id(model))
    if (
        trace is None
        or trace.built != built
        or (isinstance(trace.found, ValueError) and (x is not None) > trace.had_data)
    ):
        try:
            found: list[Call] | ValueError = _trace(model, x)
        except ValueError as error:
            found = error
        trace = kept[id(model)] = _Trace(model, built, x is not None, found, {})
    if isinstance(trace.found, ValueError):
        raise trace.found
    return trace.found


def derived_from_calls(model: keras.Model, derive: Callable[[list[Call]], Derived]) -> Derived:
    """Returns `derive(calls(model))`; within `traced_once`, `derive` runs once for each trace."""
    found = calls(model)
    trace = (_TRACES.get() or {}).get(id(model))
    if trace is None or trace.found is not found:
        return derive(found)
    if derive not in trace.derived:
        trace.derived[derive] = derive(found)
    return trace.derived[derive]


def _trace(model: keras.Model, x: Any) -> list[Call]:
    if lacks_call(model):
        return _trace_parts(model)
    if not model.built:
        raise ValueError(
            f"model: got {model.name}, which is not built, expected a built model. "
            "Start it with keras.Input(shape), call it on data, or build() it."
        )
    problem: Exception | None = None
    for symbols in _arguments(model, x):
        recorder = Recorder(model, free_batch())
        try:
            recorder.run(symbols)
        except Exception as error:  # whatever a user's `call` raises on symbolic tensors
            problem = problem or error
        else:
            return recorder.calls
    called = f"model: got {model.name} of class {type(model).__name__}, which"
    if problem is None:
        raise ValueError(
            f"{called} does not say what inputs it takes, expected one that was built by build(input_shape), or called "
            "on one tensor as its first argument."
        )
    raise ValueError(
        f"{called} does not run on symbolic tensors "
        f"({describe_error(problem)}), expected a model that does. "
        "keras_initkit.probe measures any model."
    ) from problem


def _trace_parts(model: keras.Model) -> list[Call]:
    """Traces the parts that a model without a `call` holds, one by one."""
    if not is_built(model):
        raise_without_call(model)
    recorder = Recorder(model, free_batch())
    recorder.run_parts({part: _arguments(part, None) for part in sublayers(model)})
    return recorder.calls


def has_graph(model: keras.Model) -> bool:
    """Whether a model was made of symbolic inputs and outputs."""
    try:  # a Sequential model that is not built raises, a subclassed one has no such attribute
        return bool(model.inputs) and bool(model.outputs)
    except (AttributeError, ValueError):
        return False


def inputs_structure(model: keras.Model) -> Any:
    """Returns the list, dictionary or tensor in which a Functional model takes its inputs; `None` for another model."""
    return model.input if has_graph(model) and not isinstance(model, keras.Sequential) else None


def leaves_in_order(model: keras.Model, x: Any) -> list[Any]:
    """Returns the arrays of `x` in the order of the model's inputs, which a dictionary may give by their names."""
    if isinstance(x, dict) and has_graph(model) and not isinstance(inputs_structure(model), dict):
        return [x[symbol.name] for symbol in model.inputs]
    return keras.tree.flatten(x)


def _arguments(model: keras.Model, x: Any) -> Iterator[Any]:
    """Yields symbolic inputs, as good guesses as there are."""
    if has_graph(model):
        structure = inputs_structure(model)
        given = [None] * len(model.inputs) if x is None else leaves_in_order(model, x)
        for free in (FREE_DIMENSION, None):  # a nested model may want other sizes than these
            symbols = [
                keras.KerasTensor(_sized(_filled(symbol.shape, each), free), symbol.dtype)
                for symbol, each in zip(model.inputs, given, strict=True)
            ]
            yield symbols[0] if structure is None else keras.tree.pack_sequence_as(structure, symbols)
    elif x is not None:
        for batch in ((None,), ()):  # any number of examples; that of `x`, where a part was built for it
            yield keras.tree.map_structure(
                lambda each, b=batch: keras.KerasTensor(
                    _sized((*b, *each.shape[len(b) :])), keras.backend.standardize_dtype(each.dtype)
                ),
                x,
            )
    else:
        shape = (model.get_build_config() or {}).get("input_shape")
        for batch in ((None,), ()) if shape else ():
            for dtype in ("float32", "int32"):
                yield keras.tree.map_shape_structure(
                    lambda each, b=batch, d=dtype: keras.KerasTensor(_sized((*b, *each[len(b) :])), d), shape
                )


def _filled(shape: tuple[int | None, ...], given: Any) -> tuple[int | None, ...]:
    """Returns an input's shape, its free sizes being those of the data."""
    sizes = shape if given is None or len(given.shape) != len(shape) else given.shape
    return (shape[0], *(theirs if ours is None else ours for ours, theirs in zip(shape[1:], sizes[1:], strict=True)))


def _sized(shape: Any, free: int | None = FREE_DIMENSION) -> tuple[int | None, ...]:
    batch, *rest = shape
    return (batch or free_batch(), *(size or free for size in rest))
