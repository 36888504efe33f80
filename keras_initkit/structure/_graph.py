"""What a graph is made of: tensors, and the calls between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import keras


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph. Two are equal if they are the same tensor.

    Args:
        number: Integer.
        shape: Tuple of integers. `None` for an axis of examples whose number is free.
        dtype: String.
        variable: Keras variable, where the tensor is a weight.
        value: The numbers of a constant that a layer returns, such as a table of sines.
    """

    number: int
    shape: tuple[Any, ...] = field(compare=False)
    dtype: str = field(compare=False)
    variable: keras.Variable | None = field(default=None, compare=False, repr=False)
    value: Any = field(default=None, compare=False, repr=False)

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers and thus has a gradient."""
        return keras.backend.is_float_dtype(self.dtype)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer, or of an operation that is no layer (`x + y`, `keras.ops.softmax(x)`).

    Args:
        path: String. The layer's path as in `named_layers`; an operation's name after the path of what it is part of.
        layer: The layer or operation.
        index: Integer. Number of this call among the layer's calls, from 0, in the order of the forward pass.
        inputs: Tuple of `Tensor`. The inputs, in the order of its arguments, without a layer's masks.
        outputs: Tuple of `Tensor`.
        args: Tuple. All positional arguments, tensors as `Tensor`.
        kwargs: Dictionary. All keyword arguments, likewise.
        opened: Boolean. Whether the calls inside it stand before it, its outputs being theirs.
        reason: String. Why a composite layer could not be opened, where it could not.
        role: String. `"normalization"` or `"activation"` for operations that `gathered_calls` has made one call.
        function: The function of one tensor that such an activation is.
        losses: Tuple of `Tensor`. Of the model's call: what its layers add by `add_loss`, regularizers apart.
    """

    path: str
    layer: Any
    index: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    opened: bool = False
    reason: str = ""
    role: Literal["", "normalization", "activation"] = ""
    function: Callable | None = None
    losses: tuple[Tensor, ...] = ()


def leaves(found: Iterable[Call]) -> list[Call]:
    """Returns the calls without the composites that are opened, for which the calls inside them stand."""
    return [call for call in found if not call.opened]


def makers(found: Iterable[Call]) -> dict[Tensor, Call]:
    """Returns the call that makes each tensor, composites being replaced by the calls inside them."""
    return {tensor: call for call in leaves(found) for tensor in call.outputs}


def readers(found: Iterable[Call]) -> dict[Tensor, list[Call]]:
    """Returns the calls that read each tensor, composites being replaced by the calls inside them."""
    by_tensor: dict[Tensor, list[Call]] = {}
    for call in leaves(found):
        for tensor in dict.fromkeys(call.inputs):
            by_tensor.setdefault(tensor, []).append(call)
    return by_tensor


def signals(found: Iterable[Call]) -> set[Tensor]:
    """Returns the tensors of a model's calls that depend on its inputs; the others are weights and constants."""
    found = list(found)
    known = set(found[-1].inputs) if found else set()
    for call in found:
        if known.intersection(call.inputs):
            known.update(call.outputs)
    return known
