"""Rules for operations that apply a function to each element."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_initkit.prediction.algebra._activation import activate
from keras_initkit.prediction.algebra._notes import Squared
from keras_initkit.prediction.algebra._signals import (
    Gradient,
    LayerPropagation,
    Signal,
    UnpredictableError,
)
from keras_initkit.prediction.operation_rules._elementwise import needed
from keras_initkit.prediction.operation_rules._factors import statistic_of
from keras_initkit.prediction.operation_rules._operands import nothing, operands
from keras_initkit.prediction.operation_rules._rule_table import rule


@rule(operations="Square")
def square(call, inputs):
    """y = x^2."""
    return _squared(inputs[0])


def _squared(x: Signal) -> LayerPropagation:
    note = Squared(x)
    if x.known and x.gaussian and x.identically_distributed:
        found = activate(_square, replace(x, note=None))
        return replace(found, output=replace(found.output, note=note))

    def backward(gradient: Gradient) -> list[Gradient]:
        if gradient.second_moment == 0:
            return [nothing(gradient)]
        raise UnpredictableError("it squares what is not Gaussian")

    return LayerPropagation(Signal.unknown(x.size, axes=x.axes, note=note), backward)


def _square(z):
    return z * z


@rule(operations="Sqrt Rsqrt Reciprocal")
def root(call, inputs):
    """The root of a statistic, as normalizations take it."""
    power = {"Sqrt": 0.5, "Rsqrt": -0.5, "Reciprocal": -1.0}[type(call.layer).__name__]
    found = statistic_of(inputs[0], power)
    if found is None:
        raise UnpredictableError("it takes the root of a signal")
    return found


@rule(operations="Power")
def power(call, inputs):
    """y = x^p for a number p."""
    given = operands(call, inputs)
    exponent = given[1].scalar if len(given) == 2 else None
    if exponent is None:
        raise UnpredictableError("its exponent is no number")
    found = statistic_of(inputs[0], exponent)
    if found is not None:
        return found
    if exponent == 2:
        return _squared(inputs[0])
    return activate(_with_numbers(np.power, exponent), needed(inputs[0]))


@rule(operations="Maximum Minimum")
def extreme(call, inputs):
    """The larger of x and a number."""
    given = operands(call, inputs)
    numbers = [each.scalar for each in given]
    bound = next((value for value in numbers if value is not None), None)
    if bound is None or len(given) != 2:
        raise UnpredictableError("the distribution of an extreme of several branches is not tracked")
    (x,) = [each.signal for each, value in zip(given, numbers, strict=True) if value is None]
    if x.note is not None and not x.known:  # the floor under a variance
        return LayerPropagation(x, lambda g: [nothing(g)])
    function = np.maximum if type(call.layer).__name__ == "Maximum" else np.minimum
    return activate(_with_numbers(function, bound), needed(x))


@functools.lru_cache(maxsize=256)
def _with_numbers(function: Callable, *numbers: float) -> Callable:
    return lambda z: function(np.asarray(keras.ops.convert_to_numpy(z)), *numbers)


_ELEMENTWISE = (
    "Relu Relu6 Silu Gelu Tanh Sigmoid HardSigmoid HardSilu HardTanh Elu Selu Celu LeakyRelu Softplus Softsign "
    "SoftShrink HardShrink TanhShrink Squareplus LogSigmoid Exp Expm1 Absolute Abs Erf Clip"
)


@rule(operations=_ELEMENTWISE)
def elementwise(call, inputs):
    """y = f(x) for the operation f."""
    if inputs[0].values is not None:
        raise UnpredictableError("its input holds fixed values")
    return activate(_function(type(call.layer), _config(call.layer)), needed(inputs[0]).with_margin())


def _config(operation: Any) -> tuple:
    return tuple((name, value) for name, value in sorted(vars(operation).items())
                 if not name.startswith("_") and name != "name" and isinstance(value, int | float | str | None)
                 )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _function(kind: type, config: tuple) -> Callable:
    """Returns one function for all operations of one kind, so that their moments are computed once."""
    return kind(**dict(config))
