"""Checks a model's inputs against its specification, or draws inputs from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit._checks import checked_count
from keras_initkit._compat import inputs_structure
from keras_initkit.structure._calls import calls, has_graph
from keras_initkit.structure._layer_kinds import is_embedding
from keras_initkit.structure._sublayers import walk_layers

FREE_DIMENSION = 16


class InputSpec(NamedTuple):
    """What a model says of one of its inputs.

    `shape` has `None` for what is free, the batch included. `rows` is the smallest number of rows of the embeddings
    that read it; `None` if none does.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    rows: int | None


def input_specs(model: keras.Model) -> list[InputSpec] | None:
    """A Functional or Sequential model's inputs in order; `None` for one that has no graph, or is not built."""
    if not has_graph(model):
        return None
    graph = calls(model)
    names = _keys(model) or [symbol.name for symbol in model.inputs]
    specs = []
    for name, symbol, tensor in zip(names, model.inputs, graph[-1].inputs, strict=True):
        shape, rows = symbol.shape, []
        for call in graph:
            if tensor not in call.inputs:
                continue
            if has_graph(call.layer):  # a nested one may say more
                inner = call.layer.inputs[call.inputs.index(tensor)].shape
                if len(inner) == len(shape):
                    shape = tuple(theirs if ours is None else ours for ours, theirs in zip(shape, inner, strict=True))
            elif isinstance(call.layer, keras.Layer):
                rows += [part.input_dim for _, part in walk_layers(call.layer) if is_embedding(part)]
        specs.append(InputSpec(name, tuple(shape), tensor.dtype, min(rows, default=None)))
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
    specs = input_specs(model)
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
    return arrays[0] if len(arrays) == 1 else arrays


def _draw(spec: InputSpec, batch_size: int, generator: np.random.Generator) -> np.ndarray:
    batch, *rest = spec.shape
    shape = (batch or batch_size, *(FREE_DIMENSION if size is None else size for size in rest))
    if spec.rows is not None:
        return generator.integers(0, spec.rows, shape).astype(spec.dtype)
    if keras.backend.is_float_dtype(spec.dtype):
        return generator.standard_normal(shape).astype("float32")
    if spec.dtype == "string":
        raise ValueError(f"x: got None for the model's input {spec.name!r} of strings, which cannot be drawn. Give x.")
    return generator.integers(0, 2, shape).astype(spec.dtype)


def prepared(model: keras.Model, x: Any) -> Any:
    """Returns `x` as backend tensors that fit the model's inputs, in the structure in which it was given."""
    if isinstance(x, list | tuple) and all(isinstance(leaf, int | float) for leaf in keras.tree.flatten(x)):
        x = np.asarray(x)
    specs = input_specs(model)
    flat = keras.tree.flatten(x)
    by_order = _in_order_of(x, flat, specs) if specs else [None] * len(flat)
    tensors = [_checked(leaf, spec, place) for place, (leaf, spec) in enumerate(zip(flat, by_order, strict=True))]
    lengths = {int(tensor.shape[0]) for tensor in tensors}
    if len(lengths) > 1:
        raise ValueError(f"x: got inputs of {sorted(lengths)} examples, expected the same number in each.")
    if 0 in lengths:
        raise ValueError("x: got no examples, expected at least one.")
    return keras.tree.pack_sequence_as(x, tensors)


def _in_order_of(x: Any, flat: list[Any], specs: list[InputSpec]) -> list[InputSpec]:
    """The specification of each leaf of `x`."""
    names = [spec.name for spec in specs]
    if isinstance(x, dict) and not any(keras.tree.is_nested(leaf) for leaf in x.values()):
        if sorted(x) != sorted(names):
            raise ValueError(f"x: got inputs named {sorted(x)}, expected {sorted(names)}.")
        return sorted(specs, key=lambda spec: spec.name)  # as Keras flattens dictionaries
    if len(flat) != len(specs):
        raise ValueError(f"x: got {len(flat)} arrays, expected {len(specs)}, one for each of the inputs {names}.")
    return specs


def _checked(leaf: Any, spec: InputSpec | None, place: int) -> Any:
    name = f"x[{spec.name!r}]" if spec else f"x[{place}]"
    if not keras.ops.is_tensor(leaf):
        leaf = np.asarray(leaf)
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
    expected = "integers" if spec.rows is None else f"integers from 0 to {spec.rows - 1}, an embedding's rows"
    if values.dtype.kind not in "iub":
        wrong = values[values != np.round(values)].astype("float64")  # NaN too
        if wrong.size:
            raise ValueError(f"{name}: got {wrong[0]:.6g} (dtype {values.dtype}), expected {expected}.")
    if spec.rows is not None and values.size and not (values.min() >= 0 and values.max() < spec.rows):
        raise ValueError(f"{name}: got numbers from {values.min():g} to {values.max():g}, expected {expected}.")
