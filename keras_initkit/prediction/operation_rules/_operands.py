"""The arguments of an operation, numbers among them, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_initkit.prediction.algebra._layout import broadcast, joint_axes
from keras_initkit.prediction.algebra._signals import Gradient, Signal, UnpredictableError
from keras_initkit.prediction.operation_rules._elementwise import needed
from keras_initkit.structure._graph import Call, Tensor


@dataclass
class Operand:
    """An argument of an operation: a tensor's signal, or a number or array."""

    signal: Signal
    shape: tuple[int | None, ...]
    number: int | None  # of the tensor

    @property
    def scalar(self) -> float | None:
        """Its value, where all elements have one."""
        if self.signal.values is None:
            return None
        values = np.asarray(self.signal.values(), "float64")
        return float(values.flat[0]) if values.size and np.ptp(values) == 0 else None


def operands(call: Call, inputs: Sequence[Signal]) -> list[Operand]:
    """Returns the arguments of a call that are tensors or numbers, in their order."""
    signals = {tensor.number: signal for tensor, signal in zip(call.inputs, inputs, strict=True)}
    found = []
    for each in keras.tree.flatten((call.args, dict(call.kwargs))):
        if isinstance(each, Tensor):
            found.append(Operand(signals[each.number], each.shape, each.number))
        elif isinstance(each, int | float | np.ndarray | np.generic) or keras.ops.is_tensor(each):
            array = np.asarray(keras.ops.convert_to_numpy(each) if keras.ops.is_tensor(each) else each, "float64")
            found.append(Operand(Signal.unknown((), values=lambda array=array: array), array.shape, None))
    return found


def to_inputs(call: Call, given: Sequence[Operand], parts: Sequence[Gradient | None]) -> list[Gradient]:
    """Returns the gradients of a call's inputs from those of its operands."""
    return [part for operand, part in zip(given, parts, strict=True) if operand.number is not None]  # type: ignore


def nothing(gradient: Gradient) -> Gradient:
    """A gradient that is negligible."""
    return gradient.scaled(0.0, sources=frozenset(), white=True, common=None)


def together(call: Call, given: Sequence[Operand]) -> list[Signal]:
    """Returns the operands broadcast to the shape of the output."""
    shape = call.outputs[0].shape
    axes = joint_axes([each.signal for each in given], [each.shape for each in given], shape)
    return [broadcast(needed_or_values(each.signal), each.shape, shape, axes) for each in given]


def needed_or_values(x: Signal) -> Signal:
    """Returns a signal that is known by its moments or its values."""
    return x if x.values is not None else needed(x)


def repeats(given: Operand, shape: Sequence[int | None]) -> float | None:
    """Returns how often an operand is repeated to reach a shape; `None` where that is not known."""
    own = (1,) * (len(shape) - len(given.shape)) + tuple(given.shape)
    grown = [m for n, m in zip(own[1:], shape[1:], strict=True) if n == 1 and m != 1]
    return None if None in grown else math.prod(m for m in grown if m is not None)


def examples_of(given: Operand, shape: Sequence[int | None]) -> float:
    """Returns how many examples an operand is repeated for; their gradients add up as independent ones."""
    if given.number is None or (len(given.shape) == len(shape) and given.shape[0] != 1):
        return 1.0
    if shape[0] is None:
        raise UnpredictableError("the number of examples that read it is not known")
    return float(shape[0])


def summed(gradient: Gradient, copies: float | None, factor: float) -> Gradient:
    """Adds up the gradients of copies."""
    if copies == 1:
        return gradient.scaled(factor)
    if copies is None or gradient.between_positions is None:
        raise UnpredictableError("its copies add up gradients that are correlated between neighboring positions")
    together = copies + copies * (copies - 1) * gradient.between_positions / max(gradient.second_moment, 1e-300)
    return gradient.scaled(factor * together, white=True, common=None, levels=None)


def with_constants(scalars: Sequence[float | None], found: Sequence[Any]) -> list[Any]:
    left = iter(found)
    return [None if value is not None else next(left) for value in scalars]
