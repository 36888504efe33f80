"""Walks through a model from kernel to kernel: which come before a tensor, which after, which gate and which route."""

from __future__ import annotations

import keras

from keras_initkit.structure._attentions import find_attentions
from keras_initkit.structure._calls import calls
from keras_initkit.structure._graph import Call, Tensor, makers, readers, signals
from keras_initkit.structure._kernel import Kernel
from keras_initkit.structure._kernels import WeightRoles
from keras_initkit.structure._layer_kinds import (
    SCALINGS,
    is_embedding,
    is_nonlinear,
    is_recurrent,
    moves,
    passes_through,
)
from keras_initkit.structure._patterns import gathered_calls
from keras_initkit.structure._residual import Branch, HeldKernels
from keras_initkit.structure._roles import normalizes
from keras_initkit.structure._streams import ResidualStreams

Found = list[tuple[Kernel, Call, bool]]


class KernelWalks:
    """The calls of a model, and the kernels that each multiplies by."""

    def __init__(self, model: keras.Model):
        found = gathered_calls(model)
        self.attentions = find_attentions(calls(model))
        self.streams = ResidualStreams(model, self.attentions)
        self._makers, self._readers, self._moving = makers(found), readers(found), signals(found)
        self._products = {id(each.product): each for each in self.attentions}
        self._softmaxes = {id(each.softmax) for each in self.attentions}
        self._held = HeldKernels(model)
        self.kernels = list(WeightRoles(model).kernels)
        self.producers: dict[int, list[Call]] = {}
        for call in found:
            for kernel in self._kernels_of(call):
                self.producers.setdefault(id(kernel.variable), []).append(call)

    def branch_with(self, call: Call) -> int | None:
        """Returns the place of the smallest branch that a call is in."""
        fits = [
            (len(b.calls), place) for place, b in enumerate(self.streams.branches) if any(call is c for c in b.calls)
        ]
        return min(fits)[1] if fits else None

    def is_product(self, tensor: Tensor) -> bool:
        """Whether a tensor is the product of a kernel, perhaps moved."""
        return bool(self._makers.get(tensor)) and bool(self.before(tensor, only_moved=True))

    def written(self, place: int) -> Found:
        """Returns the kernels whose products a branch adds."""
        return self.before(self.streams.branches[place].end)

    def before(self, tensor: Tensor, only_moved: bool = False) -> Found:
        """Returns the nearest kernels on the way back from a tensor, and whether an activation comes after them.

        The way ends at residual sums, lookups and recurrent layers, and leads through attentions along their values.
        """
        waiting, seen, kernels = [(tensor, False)], set(), {}
        while waiting:
            each, bent = waiting.pop()
            call = self._makers.get(each)
            if call is None or each in seen or self.streams.is_sum(call) or is_recurrent(call.layer):
                continue
            seen.add(each)
            bent = bent or _bends(call)
            if held := self._kernels_of(call):
                kernels.update({id(kernel.variable): (kernel, call, bent) for kernel in held})
            elif id(call) in self._products:
                waiting.append((self._products[id(call)].value, bent))
            elif not only_moved or moves(call.layer):
                waiting += [(other, bent) for other in call.inputs if other in self._moving and other.is_float]
        return list(kernels.values())

    def after(self, tensor: Tensor) -> list[tuple[Kernel, Call]]:
        """Returns the nearest kernels on the way on from a tensor, up to residual sums and attentions."""
        waiting, seen, kernels = [tensor], set(), {}
        while waiting:
            each = waiting.pop()
            for call in self._readers.get(each, []):
                if id(call) in seen or self.streams.is_sum(call) or id(call) in self._products:
                    continue
                seen.add(id(call))
                held = self._kernels_of(call)
                kernels.update({id(kernel.variable): (kernel, call) for kernel in held})
                waiting += () if held else call.outputs
        return list(kernels.values())

    def routes(self, kernel: Kernel) -> bool:
        """Whether a kernel's product, through a softmax that is no attention's or a sigmoid, chooses among others."""
        waiting = [tensor for call in self.producers.get(id(kernel.variable), []) for tensor in call.outputs]
        for _ in range(40):
            if not waiting:
                return False
            for call in self._readers.get(waiting.pop(), []):
                name = type(call.layer).__name__
                if name == "TopK" or (name == "Softmax" and id(call) not in self._softmaxes):
                    return True
                if moves(call.layer) or name in ("Sigmoid", "Activation"):
                    waiting += call.outputs
        return False

    def gates(self, branch: Branch) -> dict[int, set[bool]]:
        """Returns for kernels whose products are multiplied by each other's whether they are gates, by identity.

        Of the two the one behind an activation is; one kernel may hold both.
        """
        found: dict[int, set[bool]] = {}
        for call in branch.calls:
            factors = [tensor for tensor in call.inputs if tensor in self._moving and tensor.is_float]
            if type(call.layer).__name__ not in SCALINGS or call.role or len(factors) != 2:
                continue
            sides = [[each for each in self.before(tensor) if not self.routes(each[0])] for tensor in factors]
            if not all(sides):
                continue
            bent = [any(each[2] for each in side) for side in sides]
            for side, is_gate in zip(sides, bent, strict=True):
                for kernel, _, _ in side:
                    found.setdefault(id(kernel.variable), set()).add(is_gate and bent[0] != bent[1])
        return found

    def reads_normalized(self, kernel: Kernel) -> bool:
        """Whether a kernel multiplies what a normalization has made, perhaps moved or dropped out."""
        tensors = [t for call in self.producers.get(id(kernel.variable), []) for t in call.inputs if t in self._moving]
        for _ in range(20 * len(tensors)):
            if not tensors:
                break
            call = self._makers.get(tensors.pop())
            if call is None or not (normalizes(call) or moves(call.layer) or passes_through(call.layer)):
                return False
            if not normalizes(call):
                tensors += [tensor for tensor in call.inputs if tensor in self._moving and tensor.is_float]
        return not tensors

    def _kernels_of(self, call: Call) -> list[Kernel]:
        """Returns the kernels, tables apart, that a call multiplies by."""
        if is_embedding(call.layer) and isinstance(call.layer, keras.Layer):
            return []
        return [kernel for kernel in self._held.by(call) if kernel.role not in ("unknown", "recurrent")]


def _bends(call: Call) -> bool:
    if call.role:
        return call.role == "activation"
    if isinstance(call.layer, keras.Layer):
        return is_nonlinear(call.layer)
    return len(call.inputs) == 1 and is_nonlinear(call.layer)
