"""The residual branches of a model."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from keras_initkit.structure._graph import Call, Tensor, signals
from keras_initkit.structure._kernel import Kernel
from keras_initkit.structure._kernels import WeightRoles
from keras_initkit.structure._layer_kinds import SCALINGS, is_nonlinear
from keras_initkit.structure._patterns import gathered_calls
from keras_initkit.structure._sublayers import walk_layers


@dataclass(frozen=True, eq=False)
class Branch:
    """A residual branch: F in x + F(x), or in S(x) + F(x) with a linear S of at most one kernel.

    Args:
        at: String. Path of the sum that it ends in.
        calls: Tuple of `Call`. The calls between x and the sum, in the order of the forward pass.
        kernels: Tuple of `Kernel`. The kernels of these layers, in the same order.
        sum: The call that adds it to the stream.
        end: Tensor. What is added.
        stream: Tensor. What it is added to.
    """

    at: str
    calls: tuple[Call, ...]
    kernels: tuple[Kernel, ...]
    sum: Call
    end: Tensor
    stream: Tensor


def residual_branches(model: keras.Model) -> list[Branch]:
    """Returns the residual branches of a model, in the order of the sums that they end in.

    A sum (`Add`, or `a + b`) is residual if its inputs are computed from one tensor along separate paths, and one of
    these, the shortcut, has no activation and at most one kernel, fewer than the others, which are the branches.

    Example:

    >>> x = inputs = keras.Input((4,))
    >>> hidden = keras.layers.Dense(4, "relu", name="a")(x)
    >>> model = keras.Model(inputs, keras.layers.Add(name="sum")([x, keras.layers.Dense(4, name="b")(hidden)]))
    >>> [(branch.at, [call.path for call in branch.calls]) for branch in residual_branches(model)]
    [('sum', ['a', 'b'])]
    """
    found = gathered_calls(model)
    made: dict[Tensor, int] = {}  # place of the call that makes a tensor
    for place, call in enumerate(found):
        for tensor in call.outputs:
            made.setdefault(tensor, place)
    moving = signals(found)
    # The sources of each call: places of the calls that it depends on; the model's inputs are negative numbers.
    sources: list[set[int]] = []
    for call in found:
        before = {made.get(tensor, -tensor.number) for tensor in call.inputs if tensor in moving}
        sources.append(before.union(*(sources[place] for place in before if place >= 0)) if before else before)
    held = HeldKernels(model)

    branches = []
    for call in found:
        if not _is_sum(call, moving):
            continue
        ends = [made.get(tensor, -tensor.number) for tensor in call.inputs]
        reach = [{end}.union(sources[end] if end >= 0 else ()) for end in ends]
        common = set.intersection(*reach)
        if not common:
            continue
        start = max(common)  # the nearest: the last in the order of flow
        ways = []
        for upstream in reach:
            between = sorted(place for place in upstream - common if place >= 0 and start in sources[place])
            ways.append([found[place] for place in between])
        counts = [sum(len(held.by(each)) for each in way) for way in ways]
        shortcut = counts.index(min(counts))
        others = counts[:shortcut] + counts[shortcut + 1 :]
        linear = not any(_bends(each, moving) for each in ways[shortcut])
        if counts[shortcut] > 1 or not linear or counts[shortcut] >= min(others):
            continue
        for place, way in enumerate(ways):
            if place != shortcut:
                inside = [kernel for each in way for kernel in held.by(each)]
                end, stream = call.inputs[place], call.inputs[shortcut]
                branches.append(Branch(call.path, tuple(way), tuple(inside), call, end, stream))
    return branches


def _is_sum(call: Call, moving: set[Tensor]) -> bool:
    """Whether a call adds signals; a bias is none."""
    if isinstance(call.layer, keras.layers.Add):
        return len(call.inputs) > 1
    # `a + b` of symbolic tensors is an operation, whose class Keras does not export.
    return type(call.layer).__name__ == "Add" and len(call.inputs) == 2 and moving.issuperset(call.inputs)


def _bends(call: Call, moving: set[Tensor]) -> bool:
    """Whether a call is no linear function of its input, its scale apart."""
    if call.role:
        return call.role == "activation"
    if isinstance(call.layer, keras.Layer):
        return is_nonlinear(call.layer)
    if sum(tensor in moving for tensor in call.inputs) > 1:  # a product of signals
        return type(call.layer).__name__ in SCALINGS
    return is_nonlinear(call.layer)


class HeldKernels:
    """The kernels that a call multiplies by: those of its layer and its parts, or the weights that it reads itself."""

    def __init__(self, model: keras.Model):
        roles = WeightRoles(model)
        self._owned: dict[int, list[Kernel]] = {}
        self._products: dict[Tensor, Kernel] = {}  # by what the product makes
        for kernel in roles.kernels:
            self._owned.setdefault(id(kernel.layer), []).append(kernel)
            for call in roles.products.get(id(kernel.variable), []):
                self._products.update(dict.fromkeys(call.outputs, kernel))

    def by(self, call: Call) -> list[Kernel]:
        if call.opened:  # the calls inside it stand for it
            return []
        if isinstance(call.layer, keras.Layer):
            return [kernel for _, layer in walk_layers(call.layer) for kernel in self._owned.get(id(layer), [])]
        return [self._products[tensor] for tensor in call.outputs if tensor in self._products]
