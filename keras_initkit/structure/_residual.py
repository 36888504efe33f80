"""The residual branches of a model."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from keras_initkit.structure._calls import calls
from keras_initkit.structure._graph import Call
from keras_initkit.structure._kernels import Kernel, kernels
from keras_initkit.structure._layer_kinds import is_nonlinear
from keras_initkit.structure._sublayers import walk_layers


@dataclass(frozen=True, eq=False)
class Branch:
    """A residual branch: F in x + F(x), or in S(x) + F(x) with a linear S of at most one kernel.

    Args:
        at: String. Path of the sum that it ends in.
        calls: Tuple of `Call`. The calls between x and the sum, in the order of the forward pass.
        kernels: Tuple of `Kernel`. The kernels of these layers, in the same order.
    """

    at: str
    calls: tuple[Call, ...]
    kernels: tuple[Kernel, ...]


def residual_branches(model: keras.Model) -> list[Branch]:
    """Returns the residual branches of a Functional or Sequential model, in the order of the sums that they end in.

    A sum (`Add`, or `a + b`) is residual if its inputs are computed from one tensor along separate paths, and one of
    these, the shortcut, has no activation and at most one kernel, fewer than the others, which are the branches.

    Example:

    >>> x = inputs = keras.Input((4,))
    >>> hidden = keras.layers.Dense(4, "relu", name="a")(x)
    >>> model = keras.Model(inputs, keras.layers.Add(name="sum")([x, keras.layers.Dense(4, name="b")(hidden)]))
    >>> [(branch.at, [call.path for call in branch.calls]) for branch in residual_branches(model)]
    [('sum', ['a', 'b'])]
    """
    found = calls(model)
    made: dict[int, int] = {}  # place of the call that makes a tensor
    for place, call in enumerate(found):
        for tensor in call.outputs:
            made.setdefault(tensor.number, place)
    # The sources of each call: indices of the calls that it depends on; the model's inputs are negative numbers.
    sources: list[set[int]] = []
    for call in found:
        before = {_place(made, tensor.number) for tensor in call.inputs}
        sources.append(before.union(*(sources[place] for place in before if place >= 0)) if before else before)
    owned: dict[int, list[Kernel]] = {}
    for kernel in kernels(model):
        owned.setdefault(id(kernel.layer), []).append(kernel)

    branches = []
    for call in found:
        if not _is_sum(call):
            continue
        ends = [_place(made, tensor.number) for tensor in call.inputs]
        reach = [{end}.union(sources[end] if end >= 0 else ()) for end in ends]
        common = set.intersection(*reach)
        if not common:
            continue
        start = max(common)  # the nearest: the last in the order of flow
        ways = []
        for upstream in reach:
            between = sorted(place for place in upstream - common if place >= 0 and start in sources[place])
            ways.append([found[place] for place in between])
        counts = [sum(len(_held_kernels(each, owned)) for each in way) for way in ways]
        shortcut = counts.index(min(counts))
        others = counts[:shortcut] + counts[shortcut + 1 :]
        linear = not any(is_nonlinear(each.layer) for each in ways[shortcut])
        if counts[shortcut] > 1 or not linear or counts[shortcut] >= min(others):
            continue
        for place, way in enumerate(ways):
            if place != shortcut:
                inside = [kernel for each in way for kernel in _held_kernels(each, owned)]
                branches.append(Branch(call.path, tuple(way), tuple(inside)))
    return branches


def _place(made: dict[int, int], number: int) -> int:
    return made.get(number, -number)  # tensors are numbered from 1, the model's inputs first


def _is_sum(call: Call) -> bool:
    if isinstance(call.layer, keras.layers.Add):
        return len(call.inputs) > 1
    # `a + b` of symbolic tensors is an operation, whose class Keras does not export.
    return (
        not isinstance(call.layer, keras.layers.Layer) and type(call.layer).__name__ == "Add" and len(call.inputs) == 2
    )


def _held_kernels(call: Call, owned: dict[int, list[Kernel]]) -> list[Kernel]:
    """Returns the kernels of a layer and its parts; the layers of a nested model have separate calls."""
    if isinstance(call.layer, keras.Model) or not isinstance(call.layer, keras.Layer):
        return []
    return [kernel for _, layer in walk_layers(call.layer) for kernel in owned.get(id(layer), [])]
