"""Checks a model's inputs against its specification, or draws inputs from it."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit._checks import checked_count
from keras_initkit.inputs._lookups import rows_by_element
from keras_initkit.structure._calls import calls, has_graph, inputs_structure
from keras_initkit.structure._graph import Call
from keras_initkit.structure._separate_parts import check_has_call

FREE_DIMENSION = 16


class InputSpec(NamedTuple):
    """What a model says of one of its inputs.

    `shape` has `None` for what is free, the batch included. `rows` is an array that broadcasts to the shape of one
    example: the number of rows of the table in which each element is looked up, 0 where it is in none. It is `None`
    if no element is.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    rows: np.ndarray | None


def input_specs(model: keras.Model, x: Any = None, certain: bool = True) -> list[InputSpec] | None:
    """Returns what a model says of its inputs, in order; `None` for one that is not built or does not say.

    A subclassed model says what its trace shows, by `x` or by the shape that it was built with.

    Args:
        x: Data, of which only shapes and dtypes are read.
        certain: Boolean. Whether to leave out the tables of layers that the trace could not open.
    """
    check_has_call(model)
    graph: list[Call] = []
    with contextlib.suppress(ValueError):  # it is not built, or does not run on symbolic tensors
        graph = calls(model, x)
    rows = rows_by_element(graph, certain) if graph else {}
    if not has_graph(model):
        tensors = graph[-1].inputs if graph else ()
        of_all = [InputSpec(str(i), each.shape, each.dtype, rows.get(each.number)) for i, each in enumerate(tensors)]
        return of_all or None
    names = _keys(model) or [symbol.name for symbol in model.inputs]
    if not graph:
        return [InputSpec(n, tuple(e.shape), e.dtype, None) for n, e in zip(names, model.inputs, strict=True)]
    specs = []
    for name, symbol, tensor in zip(names, model.inputs, graph[-1].inputs, strict=True):
        shape = symbol.shape
        for call in graph:
            if tensor in call.inputs and has_graph(call.layer):  # a nested one may say more
                inner = call.layer.inputs[call.inputs.index(tensor)].shape
                if len(inner) == len(shape):
                    shape = tuple(theirs if ours is None else ours for ours, theirs in zip(shape, inner, strict=True))
        specs.append(InputSpec(name, tuple(shape), tensor.dtype, rows.get(tensor.number)))
    return specs


def _keys(model: keras.Model) -> list[str] | None:
    """The keys of a model that takes a dictionary, in the order of its inputs."""
    structure = inputs_structure(model)
    return sorted(structure) if isinstance(structure, dict) else None


def draw_inputs(model: keras.Model, batch_size: int = 32, seed: int = 0) -> Any:
    """Draws inputs from the model's specification.

    Gaussian numbers for float inputs; integers below the number of rows for what an embedding reads, 0 or 1
    for other integers. A free dimension is 16 long, unless a nested model names its length.

    >>> model = keras.Sequential([keras.layers.Input((None,), dtype="int32"), keras.layers.Embedding(5, 2)])
    >>> x = draw_inputs(model, batch_size=4)
    >>> x.shape, x.dtype, int(x.max()) < 5
    ((4, 16), dtype('int32'), True)
    """
    batch_size = checked_count("batch_size", batch_size)
    specs = input_specs(model, certain=False)
    if specs is None:
        state = "does not say what inputs it takes" if model.built else "is not built"
        raise ValueError(
            f"x: got None for the model {model.name!r}, which {state}; expected a batch of data. Give x, or build "
            "the model from keras.Input."
        )
    generator = np.random.default_rng(seed)
    arrays = [_draw(spec, batch_size, generator) for spec in specs]
    if _keys(model):
        return dict(zip([spec.name for spec in specs], arrays, strict=True))
    if not has_graph(model):
        return keras.tree.pack_sequence_as(calls(model)[-1].args[0], arrays)
    return arrays[0] if len(arrays) == 1 else arrays


def _draw(spec: InputSpec, batch_size: int, generator: np.random.Generator) -> np.ndarray:
    if spec.dtype == "string":
        raise ValueError(f"x: got None for the model's input {spec.name!r} of strings, which cannot be drawn. Give x.")
    batch, *rest = spec.shape
    shape = (batch or batch_size, *(FREE_DIMENSION if size is None else size for size in rest))
    is_float = keras.backend.is_float_dtype(spec.dtype)
    rows = 0 if spec.rows is None else spec.rows
    drawn = generator.standard_normal(shape).astype("float32") if is_float and not np.all(rows) else None
    if drawn is None or np.any(rows):
        whole = generator.integers(0, np.broadcast_to(np.where(rows, rows, 2), shape), shape)
        drawn = whole if drawn is None else np.where(rows, whole, drawn)
    return drawn.astype("float32" if is_float and not np.any(rows) else spec.dtype)


def prepared(model: keras.Model, x: Any) -> Any:
    """Returns `x` as backend tensors that fit the model's inputs, in the structure in which it was given."""
    if isinstance(x, list | tuple) and all(isinstance(leaf, int | float) for leaf in keras.tree.flatten(x)):
        x = np.asarray(x)
    x = keras.tree.map_structure(lambda leaf: leaf if keras.ops.is_tensor(leaf) else np.asarray(leaf), x)
    flat = keras.tree.flatten(x)
    specs = None
    if has_graph(model):
        _check_names(model, x, flat)
        specs = input_specs(model, x)
    by_order = _in_order_of(x, specs) if specs else [None] * len(flat)
    tensors = [_checked(leaf, spec, place) for place, (leaf, spec) in enumerate(zip(flat, by_order, strict=True))]
    lengths = {int(tensor.shape[0]) for tensor in tensors}
    if len(lengths) > 1:
        raise ValueError(f"x: got inputs of {sorted(lengths)} examples, expected the same number in each.")
    if 0 in lengths:
        raise ValueError("x: got no examples, expected at least one.")
    result = keras.tree.pack_sequence_as(x, tensors)
    if specs is None:
        for place, (tensor, spec) in enumerate(zip(tensors, input_specs(model, result) or (), strict=False)):
            if spec.rows is not None:
                _check_whole(keras.ops.convert_to_numpy(tensor), f"x[{place}]", spec)
    return result


def _check_names(model: keras.Model, x: Any, flat: list[Any]) -> None:
    names = _keys(model) or [symbol.name for symbol in model.inputs]
    if isinstance(x, dict) and not any(keras.tree.is_nested(leaf) for leaf in x.values()):
        if sorted(x) != sorted(names):
            raise ValueError(f"x: got inputs named {sorted(x)}, expected {sorted(names)}.")
    elif len(flat) != len(names):
        raise ValueError(f"x: got {len(flat)} arrays, expected {len(names)}, one for each of the inputs {names}.")


def _in_order_of(x: Any, specs: list[InputSpec]) -> list[InputSpec]:
    """The specification of each leaf of `x`; Keras flattens dictionaries in the order of their keys."""
    return sorted(specs, key=lambda spec: spec.name) if isinstance(x, dict) else specs


def _checked(leaf: Any, spec: InputSpec | None, place: int) -> Any:
    name = f"x[{spec.name!r}]" if spec else f"x[{place}]"
    strings = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "USO"
    dtype = "string" if strings else keras.backend.standardize_dtype(leaf.dtype)
    shape = tuple(leaf.shape)
    if not shape:
        raise ValueError(f"{name}: got a single number, expected a batch of examples.")
    if dtype == "string" and (spec is None or spec.dtype != "string"):
        expected = spec.dtype if spec else "numbers"
        raise ValueError(f"{name}: got dtype {leaf.dtype}, expected {expected}. Turn strings into numbers first.")
    if spec is None:
        floating = keras.backend.is_float_dtype(dtype)
        return keras.ops.convert_to_tensor(leaf, keras.backend.floatx() if dtype == "float64" and floating else None)
    # Keras adds a last axis of 1 to what has one axis less.
    fits = any(
        len(given) == len(spec.shape)
        and all(e is None or e == g for e, g in zip(spec.shape[1:], given[1:], strict=True))
        for given in (shape, (*shape, 1), shape[:-1] if shape[-1] == 1 else shape)
    )
    if not fits or (spec.shape[0] is not None and shape[0] not in (0, spec.shape[0])):
        raise ValueError(f"{name}: got shape {shape}, expected {spec.shape}.")
    if dtype != "string" and (spec.rows is not None or not keras.backend.is_float_dtype(spec.dtype)):
        _check_whole(keras.ops.convert_to_numpy(leaf), name, spec)
    return keras.ops.convert_to_tensor(leaf, None if dtype == "string" else spec.dtype)


def _check_whole(values: np.ndarray, name: str, spec: InputSpec) -> None:
    """Checks that data of an integer input are whole, and that what is looked up in a table is one of its rows."""
    rank, limits = len(spec.shape), np.zeros(1) if spec.rows is None else spec.rows
    values = values[..., None] if values.ndim < rank else values[..., 0] if values.ndim > rank else values
    try:
        rows = np.broadcast_to(limits, values.shape)
    except ValueError:  # the trace had other sizes than the data
        rows = np.zeros(values.shape)
    for size in np.unique(rows):
        expected = f"integers from 0 to {size - 1}, an embedding's rows" if size else "integers"
        chosen = values[rows == size]
        if not size and keras.backend.is_float_dtype(spec.dtype):
            continue
        if values.dtype.kind not in "iub":
            wrong = chosen[chosen != np.round(chosen)].astype("float64")  # NaN too
            if wrong.size:
                raise ValueError(f"{name}: got {wrong[0]:.6g} (dtype {values.dtype}), expected {expected}.")
        if size and chosen.size and not (chosen.min() >= 0 and chosen.max() < size):
            raise ValueError(f"{name}: got numbers from {chosen.min():g} to {chosen.max():g}, expected {expected}.")
