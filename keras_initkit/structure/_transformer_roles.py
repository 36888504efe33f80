"""What each weight of a transformer is for: query, key, value, MLP, gate, router, embedding, head, ..."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras

from keras_initkit.structure._attentions import Attention
from keras_initkit.structure._calls import traced_once
from keras_initkit.structure._following import following_products
from keras_initkit.structure._graph import Call
from keras_initkit.structure._kernel import Kernel
from keras_initkit.structure._kernel_walks import KernelWalks
from keras_initkit.structure._layer_kinds import is_embedding
from keras_initkit.structure._layer_paths import held_weights
from keras_initkit.structure._other_weights import other_role
from keras_initkit.structure._weight_uses import trace_uses


@dataclass
class WeightRole:
    """The role of a weight.

    Args:
        names: List of strings. `"query"`, `"key"`, `"value"`, `"attention output"`, `"mlp in"`, `"gate"`, `"mlp out"`,
            `"expert in"`, `"expert gate"`, `"expert out"`, `"router"`, `"embedding"`, `"tied embedding"`,
            `"position embedding"`, `"head"`, `"projection"` (a kernel outside of the residual branches, such as that
            of patches), `"token"`, `"gain"`, `"bias"`, `"state"` or `"other"`. A kernel that makes queries, keys and
            values at once has all three.
        stream: Integer. The residual stream that its branch is added to; `None` outside of the branches.
        writes: Boolean. Whether its product is what a branch adds to the stream, without another kernel between.
        cross: Boolean. Whether it belongs to an attention whose keys come from elsewhere than its branch.
    """

    names: list[str] = field(default_factory=list)
    stream: int | None = None
    writes: bool = False
    cross: bool = False

    def __str__(self) -> str:
        return ", ".join(self.names)


@dataclass(frozen=True, eq=False)
class AttentionKernels:
    """An attention, the kernels of its queries, keys and values, and the one that reads what it averages.

    Args:
        attention: `Attention`.
        query, key, value, output: `Kernel` and the call that multiplies it; `None` where there is not exactly one.
        cross: Boolean. Whether keys come from elsewhere than the branch.
    """

    attention: Attention
    query: tuple[Kernel, Call] | None
    key: tuple[Kernel, Call] | None
    value: tuple[Kernel, Call] | None
    output: tuple[Kernel, Call] | None
    cross: bool


class TransformerRoles:
    """The roles of all weights of a model, as its trace shows them.

    Args:
        model: A built Keras model.

    Attributes:
        walks: `KernelWalks`, which the roles were found by.
        attentions: List of `AttentionKernels`, in the order of the forward pass.
        streams: `ResidualStreams`.
        writes: List of integers. How often each stream is written to: twice a block in most.
        sources: Dictionary from a stream with cross-attention to the set of the streams that it reads.

    Raises:
        ValueError: If the model cannot be traced.
    """

    @traced_once()
    def __init__(self, model: keras.Model):
        self.walks = KernelWalks(model)
        self.streams = self.walks.streams
        self._roles: dict[int, WeightRole] = {}
        self.attentions: list[AttentionKernels] = []
        self.sources: dict[int, set[int]] = {}
        outputs: dict[int, set[int]] = {}  # attention outputs by branch
        for attention in self.walks.attentions:
            self._name_attention(attention, outputs)
        self.writes = [0] * (1 + max(self.streams.of_branch, default=-1))
        for place, stream in enumerate(self.streams.of_branch):
            mlp = self._name_mlp(place)
            self.writes[stream] += max(len(outputs.get(place, ())) + mlp, 1)
        self._name_rest(model)

    def __getitem__(self, variable: keras.Variable) -> WeightRole:
        return self._roles[id(variable)]

    def _add(self, kernel: Kernel, name: str, stream: int | None, writes: bool = False, cross: bool = False) -> None:
        role = self._roles.setdefault(id(kernel.variable), WeightRole())
        if name not in role.names:
            role.names.append(name)
        role.stream = stream if role.stream is None else role.stream
        role.writes, role.cross = role.writes or writes, role.cross or cross

    def _name_attention(self, attention: Attention, outputs: dict[int, set[int]]) -> None:
        walks = self.walks
        place = walks.branch_with(attention.product)
        stream = None if place is None else self.streams.of_branch[place]
        parts = {name: walks.before(getattr(attention, name)) for name in ("query", "key", "value")}
        cross = False
        if place is not None and parts["key"]:
            inside = {id(call) for call in self.streams.branches[place].calls}
            keys = [call for _, call, _ in parts["key"]]
            cross = not any(id(call) in inside for call in keys)
            if cross and stream is not None:
                read = {self.streams.of_tensor(tensor) for call in keys for tensor in call.inputs}
                self.sources.setdefault(stream, set()).update(each for each in read if each is not None)
        written = set() if place is None else {id(k.variable) for k, _, _ in walks.written(place)}
        for name, kernels in parts.items():
            for kernel, _, _ in kernels:
                self._add(kernel, name, stream, name == "value" and id(kernel.variable) in written, cross)
        after = [each for tensor in attention.product.outputs for each in walks.after(tensor)]
        for kernel, _ in after:
            self._add(kernel, "attention output", stream, id(kernel.variable) in written, cross)
            if place is not None:
                outputs.setdefault(place, set()).add(id(kernel.variable))
        one = {name: (each[0][0], each[0][1]) if len(each) == 1 else None for name, each in parts.items()}
        output = after[0] if len(after) == 1 else None
        self.attentions.append(AttentionKernels(attention, **one, output=output, cross=cross))

    def _name_mlp(self, place: int) -> bool:
        """Names the kernels of a branch that no attention has; returns whether one of them writes."""
        walks, branch, stream = self.walks, self.streams.branches[place], self.streams.of_branch[place]
        left = [k for k in branch.kernels if k.role != "embedding" and not self._in_attention(k)]
        routers = [k for k in left if walks.routes(k)]
        word = "expert " if routers else "mlp "
        writers = {id(k.variable) for k, _, _ in walks.written(place)}
        gates = walks.gates(branch)
        wrote = False
        for kernel in left:
            key = id(kernel.variable)
            if kernel in routers:
                self._add(kernel, "router", stream)
            elif key in writers:
                self._add(kernel, f"{word}out", stream, writes=True)
                wrote = True
            else:
                for gate in sorted(gates.get(key, {False})):
                    plain = "expert gate" if routers else "gate"
                    self._add(kernel, plain if gate else f"{word}in", stream)
        return wrote

    def _in_attention(self, kernel: Kernel) -> bool:
        names = self._roles[id(kernel.variable)].names if id(kernel.variable) in self._roles else []
        return any(name in ("query", "key", "value", "attention output") for name in names)

    def _name_rest(self, model: keras.Model) -> None:
        walks, uses = self.walks, trace_uses(model)
        follows = following_products(model, {key: made for key, made in walks.producers.items() if made})
        for kernel in walks.kernels:
            key = id(kernel.variable)
            if key in self._roles:
                continue
            if kernel.role == "unknown":
                name = "other"
            elif kernel.role == "embedding":
                name = "tied embedding" if kernel.tied else "embedding"
            else:  # the second table of an embedding is a head, also where the model ends before it
                ends = key in follows and follows[key].where == "output"
                name = "head" if ends or is_embedding(kernel.layer) else "projection"
            self._add(kernel, name, None)
        for _, layer, weight in held_weights(model):
            if id(weight) not in self._roles:
                name = other_role(layer, weight, uses.get(id(weight), []), walks.is_product)
                self._roles[id(weight)] = WeightRole([name])
