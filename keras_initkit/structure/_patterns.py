"""Normalizations and activations that are written in operations, each gathered into one call."""

from __future__ import annotations

import functools
import heapq
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import keras
import numpy as np

from keras_initkit.structure._calls import derived_from_calls
from keras_initkit.structure._graph import Call, Tensor, signals
from keras_initkit.structure._layer_kinds import SCALINGS, is_curved

_SMALL = 1e-2  # constants up to here keep a denominator from being zero
_LONGEST = 30  # operations that one activation or normalization may be made of
_SAME_DEGREE = re.compile(
    "Abs|Absolute|Amax|BroadcastTo|Cast|ExpandDims|GetItem|LeakyRelu|Max|Mean|Moveaxis|Negative|Norm|Relu|Repeat|"
    "Reshape|Squeeze|Std|StopGradient|Sum|Swapaxes|Transpose"
)
_ELEMENTWISE = re.compile(
    "Abs|Absolute|Add|Cast|Divide|Elu|Erf|Exp|Expm1|Gelu|HardSigmoid|HardSilu|LeakyRelu|Log|Log1p|Maximum|Minimum|"
    "Multiply|Negative|Power|Reciprocal|Relu|Relu6|Rsqrt|Selu|Sigmoid|Silu|Softplus|Softsign|Sqrt|Square|Subtract|Tanh|"
    "TrueDivide|Where"
)
_STATISTIC = re.compile("Abs|Absolute|Cast|Mean|Moments|Multiply|Norm|Normalize|Power|Square|Std|Sum|Var")


def gathered_calls(model: keras.Model) -> list[Call]:
    """Returns `calls(model)`, where each normalization and activation that is written in operations is one call.

    What divides a tensor by a statistic of it, so that its scale is gone, is a normalization, whatever it is called;
    what is made of elementwise functions of one tensor and is not a straight line is an activation, and `function` is
    that function.
    """
    return derived_from_calls(model, _gather)


def _gather(found: list[Call]) -> list[Call]:
    return _gathered(_gathered(found, "normalization"), "activation")


def _gathered(found: list[Call], kind: Literal["normalization", "activation"]) -> list[Call]:
    readers: dict[Tensor, list[int]] = {}
    moving, outputs = signals(found), set(found[-1].outputs)
    for place, call in enumerate(found):
        if not call.opened:
            for tensor in dict.fromkeys(call.inputs):
                readers.setdefault(tensor, []).append(place)
    step, begins = (_degrees, _STATISTIC) if kind == "normalization" else (_stays_elementwise, _ELEMENTWISE)
    replaced: dict[int, Call | None] = {}
    for source in readers:
        if source not in moving or not source.is_float or all(place in replaced for place in readers[source]):
            continue
        if not any(begins.fullmatch(_name(found[place])) for place in readers[source]):
            continue
        members, exits, values = _region(found, readers, source, functools.partial(step, moving=moving), outputs)
        if len(members) < 2 or len(exits) != 1 or any(place in replaced for place in members):
            continue
        last = found[members[-1]]
        if exits != set(last.outputs) or (kind == "normalization" and values[last.outputs[0]]):
            continue
        function = None
        if kind == "activation":
            function = _composed([found[place] for place in members], source)
            if not is_curved(function):
                continue
        for place in members:
            replaced[place] = None
        replaced[members[-1]] = replace(last, inputs=(source,), role=kind, function=function)
    kept = (replaced.get(place, call) for place, call in enumerate(found))
    return [call for call in kept if call is not None]


def _region(
    found: list[Call],
    readers: Mapping[Tensor, list[int]],
    source: Tensor,
    step: Callable[[Call, dict[Tensor, float]], list[float] | None],
    outputs: set[Tensor],
) -> tuple[list[int], set[Tensor], Mapping[Tensor, float]]:
    """Returns the places of the operations on `source` that `step` allows, and the tensors that others read of them.

    The third is what `step` has returned for each tensor.
    """
    values: dict[Tensor, float] = {source: 1.0}
    waiting = list(readers[source])
    members: list[int] = []
    exits: set[Tensor] = set()
    heapq.heapify(waiting)
    while waiting and len(members) <= _LONGEST:
        place = heapq.heappop(waiting)
        if members and place == members[-1]:
            continue
        call = found[place]
        made = None if isinstance(call.layer, keras.Layer) else step(call, values)
        if made is None:
            exits.update(tensor for tensor in call.inputs if tensor in values and tensor != source)
            continue
        members.append(place)
        for tensor, value in zip(call.outputs, made, strict=True):
            values[tensor] = value
            if tensor in outputs or value == 0:  # a small integer times powers of two: exact
                exits.add(tensor)
            else:
                for each in readers.get(tensor, []):
                    heapq.heappush(waiting, each)
    return members, exits, values


def _degrees(call: Call, known: Mapping[Tensor, float], moving: set[Tensor]) -> list[float] | None:
    """Returns the power of a factor of the source that comes out as a factor of each output; `None` where none does."""
    name, operands = _name(call), _operands(call)
    if any(isinstance(each, Tensor) and each in moving and each not in known for each in operands):
        return None
    of = [known.get(each) if isinstance(each, Tensor) else None for each in operands]
    degrees = [each for each in of if each is not None]
    if not degrees:
        return None
    first = degrees[0]
    if _SAME_DEGREE.fullmatch(name):
        return [first] * len(call.outputs)
    if name in ("Add", "Subtract", "Maximum"):
        if len(degrees) == 2:
            return [first] if math.isclose(degrees[0], degrees[1]) else None
        constant: Any = next((each for each, degree in zip(operands, of, strict=True) if degree is None), None)
        small = not isinstance(constant, Tensor) and np.size(constant) == 1 and abs(float(constant)) <= _SMALL
        return [first] if small else None
    if name == "Power":
        exponent: Any = operands[1]
        return [first * exponent] if of[0] is not None and isinstance(exponent, int | float) else None
    if name in SCALINGS:
        second = (of[1] or 0.0) * (1 if name == "Multiply" else -1)
        return [(of[0] or 0.0) + second]
    factors = {"Square": 2.0, "Var": 2.0, "Sqrt": 0.5, "Rsqrt": -0.5, "Reciprocal": -1.0, "Normalize": 0.0}
    if name == "Moments":
        return [first, 2 * first]
    return [first * factors[name]] if name in factors else None


def _stays_elementwise(call: Call, known: Mapping[Tensor, float], moving: set[Tensor]) -> list[float] | None:
    """Returns `[1.0]` where an operation acts by elements on what is known and on numbers; otherwise `None`."""
    fine = _ELEMENTWISE.fullmatch(_name(call)) is not None and len(call.outputs) == 1
    for each in _operands(call):
        fine = fine and (each in known if isinstance(each, Tensor) else each is None or np.size(each) == 1)
    return [1.0] if fine else None


def _name(call: Call) -> str:
    return type(call.layer).__name__


def _operands(call: Call) -> list[Any]:
    return [*call.args, *(value for value in call.kwargs.values() if isinstance(value, Tensor))]


def _composed(members: Iterable[Call], source: Tensor) -> Callable:
    """Returns the function of one tensor that operations compute together."""
    members = list(members)

    def function(x: Any) -> Any:
        known = {source: x}
        for call in members:
            args, kwargs = keras.tree.map_structure(
                lambda each: known[each] if isinstance(each, Tensor) else each, (list(call.args), dict(call.kwargs))
            )
            known[call.outputs[0]] = call.layer(*args, **kwargs)
        return known[members[-1].outputs[0]]

    function.__name__ = members[-1].path
    return function
