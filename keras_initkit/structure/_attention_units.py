"""Which units of its kernels each head of an attention has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_initkit.structure._graph import Call, Tensor
from keras_initkit.structure._kernel import Kernel, as_tuple
from keras_initkit.structure._product_letters import product_letters
from keras_initkit.structure._transformer_roles import AttentionKernels
from keras_initkit.structure._unit_order import unit_order, varying


@dataclass(frozen=True)
class HeadUnits:
    """The units of an attention's heads.

    Args:
        query, key, value: Integer arrays of shape `(heads, features)`. For each head and feature the output unit of
            the kernel that makes it.
        output: Integer array. For each input unit of the output's kernel, `head * features + feature`.
    """

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray


def head_units(found: Sequence[Call], kernels: AttentionKernels) -> HeadUnits | None:
    """Returns the units of each head; `None` where the trace does not show them, as behind a rotation of queries."""
    attention, product = kernels.attention, kernels.attention.product
    if kernels.query is None or kernels.key is None or kernels.value is None or kernels.output is None:
        return None
    if attention.scores is None:  # fused: (batch, positions, heads, features) all
        axes = {"query": [2, 3], "key": [2, 3], "value": [2, 3], "out": [2, 3]}
    else:
        scores, average = product_letters(attention.scores), product_letters(product)
        if scores is None or average is None:
            return None
        first = attention.scores.inputs[0] == attention.query
        query, key = (scores.one, scores.two) if first else (scores.two, scores.one)
        weights, value = average.one, average.two
        if product.inputs[0] == attention.value:
            weights, value = value, weights
        asked = [each for each in query if each in key and each in scores.out][1:]
        scored = [each for each in query if each in key and each not in scores.out]
        given = [each for each in value if each in weights and each in average.out][1:]
        averaged = [each for each in value if each not in weights and each in average.out]
        axes = {
            "query": [query.index(each) for each in asked + scored],
            "key": [key.index(each) for each in asked + scored],
            "value": [value.index(each) for each in given + averaged],
            "out": [average.out.index(each) for each in given + averaged],
        }
    units = {}
    for name in ("query", "key", "value"):
        kernel, call = getattr(kernels, name)
        order = unit_order(found, call.outputs[0], _last(kernel.out_axes), getattr(attention, name))
        units[name] = varying(order, axes[name])
    kernel, call = kernels.output
    order = unit_order(found, product.outputs[0], axes["out"], _signal(call, kernel))
    output = varying(order, _last(kernel.in_axes))
    found_units = [each.reshape(-1, each.shape[-1]) for each in units.values() if each is not None]
    if output is None or len(found_units) < 3:
        return None
    query_units, key_units, value_units = found_units
    return HeadUnits(query_units, key_units, value_units, output.ravel())


def _last(axes: int | Sequence[int]) -> range:
    return range(-len(as_tuple(axes)), 0)


def _signal(call: Call, kernel: Kernel) -> Tensor:
    return next(tensor for tensor in call.inputs if tensor.variable is not kernel.variable)
