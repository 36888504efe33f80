"""The graph of a model: the calls of its layers, in the order of the forward pass."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras

from keras_initkit._compat import producing_node
from keras_initkit.structure._layer_paths import named_layers


class Tensor(NamedTuple):
    """A tensor of the graph. Equal numbers mean the same tensor; `shape` has `None` where a size is not known."""

    number: int
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers and thus has a gradient."""
        return keras.backend.is_float_dtype(self.dtype)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer, or of an operation that is no layer (`x + y`).

    Args:
        path: String. The layer's path as in `named_layers`; an operation's name after its model's path.
        layer: The layer or operation.
        index: Integer. Number of this call among the layer's calls, from 0, in the order of the forward pass.
        inputs: Tuple of `Tensor`. The inputs, in the order of its arguments.
        outputs: Tuple of `Tensor`.
    """

    path: str
    layer: Any
    index: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def calls(model: keras.Model) -> list[Call]:
    """Returns every call in a Functional or built Sequential model, in the order of its forward pass.

    The calls inside a nested model stand before the nested model's call; the last one is `model` itself. A
    layer or nested model that is used in several places has one `Call` for each. `InputLayer`s have none.

    Raises:
        ValueError: If the model has no graph: a subclassed one, or a Sequential one that is not built.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.ReLU(name="b")])
    >>> [(call.path, call.index, call.outputs[0].shape) for call in calls(model)]
    [('a', 0, (None, 3)), ('b', 0, (None, 3)), ('model', 0, (None, 3))]
    """
    _check_has_graph(model)
    paths = {id(layer): path for path, layer in named_layers(model).items()}
    counts: dict[str, int] = {}
    tensors = 0
    found: list[Call] = []

    def new(symbol: Any) -> Tensor:
        nonlocal tensors
        tensors += 1
        return Tensor(tensors, tuple(symbol.shape), keras.backend.standardize_dtype(symbol.dtype))

    def record(layer: Any, path: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        index = counts.get(path, 0)
        counts[path] = index + 1
        found.append(Call(path, layer, index, inputs, outputs))

    def visit(part: keras.Model, path: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _check_has_graph(part)
        known = {id(symbol): tensor for symbol, tensor in zip(part.inputs, inputs, strict=True)}
        for node in _nodes(part):
            layer = node.operation
            read = tuple(known[id(symbol)] for symbol in node.input_tensors)
            inside = paths.get(id(layer)) or (layer.name if part is model else f"{path}/{layer.name}")
            if isinstance(layer, keras.Model) and _has_graph(layer):
                written = visit(layer, inside, read)
            else:
                written = tuple(new(symbol) for symbol in node.output_tensors)
                record(layer, inside, read, written)
            known.update((id(symbol), tensor) for symbol, tensor in zip(node.output_tensors, written, strict=True))
        outputs = tuple(known[id(symbol)] for symbol in part.outputs)
        record(part, path, inputs, outputs)
        return outputs

    visit(model, paths[id(model)], tuple(new(symbol) for symbol in model.inputs))
    return found


def _has_graph(model: keras.Model) -> bool:
    """Whether a model was made of symbolic inputs and outputs, which record its calls."""
    try:  # a Sequential model that is not built raises, a subclassed one has no such attribute
        return bool(model.inputs) and bool(model.outputs)
    except (AttributeError, ValueError):
        return False


def _check_has_graph(model: keras.Model) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: got {reprlib.repr(model)}, expected a Keras model.")
    if _has_graph(model):
        return
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"model: got {model.name}, which is not built, expected a built model. "
            "Start it with keras.Input(shape), call it on data, or build() it."
        )
    raise ValueError(
        f"model: got {model.name}, a {type(model).__name__} without a graph of layers (a subclassed model runs "
        "arbitrary Python code), expected a Functional or Sequential model. keras_initkit.probe measures any model."
    )


def _nodes(model: keras.Model) -> list[Any]:
    """Returns the calls between a model's inputs and outputs, in the order in which Keras runs them.

    Keras runs them by decreasing distance from the outputs (all calls of an operation wait for its first), which is
    repeated here.
    """
    inputs = {id(symbol) for symbol in model.inputs}

    def maker(symbol: Any) -> Any:
        return None if id(symbol) in inputs else producing_node(symbol)

    ordered: list[Any] = []  # every call after the calls that it reads from
    done: set[int] = set()
    for output in model.outputs:
        waiting = [(maker(output), False)]
        while waiting:
            node, complete = waiting.pop()
            if node is None or id(node) in done:
                continue
            if complete:
                done.add(id(node))
                ordered.append(node)
            else:
                waiting.append((node, True))
                waiting.extend((maker(symbol), False) for symbol in reversed(node.input_tensors))
    depths: dict[int, int] = {}
    operation_depths: dict[int, int] = {}
    for node in reversed(ordered):
        depth = max(depths.get(id(node), 0), operation_depths.get(id(node.operation), 0))
        depths[id(node)] = operation_depths[id(node.operation)] = depth
        for source in filter(None, map(maker, node.input_tensors)):
            depths[id(source)] = max(depths.get(id(source), 0), depth + 1)
    position = {id_: place for place, id_ in enumerate(depths)}
    return sorted(ordered, key=lambda node: (-depths[id(node)], position[id(node)]))
