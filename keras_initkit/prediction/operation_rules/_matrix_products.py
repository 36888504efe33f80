"""Rules for products of matrices: a signal with a kernel or another signal, an attention's weights with values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from keras_initkit.prediction.algebra._notes import Mixing
from keras_initkit.prediction.algebra._signals import LayerPropagation, UnpredictableError
from keras_initkit.prediction.operation_rules._kernel_products import Letters, by_kernel, equation
from keras_initkit.prediction.operation_rules._operands import Operand, operands
from keras_initkit.prediction.operation_rules._rule_table import rule
from keras_initkit.prediction.operation_rules._scores import mixed, scores
from keras_initkit.structure._graph import Call


def _matmul(ranks: Sequence[int]) -> Letters:
    one, two = ranks
    if min(ranks) < 2:
        raise UnpredictableError("it multiplies by a vector")
    batch = "ABCDEFGHIJKLM"[: max(one, two) - 2]
    return Letters(batch[max(two - one, 0) :] + "xy", batch[max(one - two, 0) :] + "yz", batch + "xz")


@rule(operations="Einsum Matmul Dot")
def product(call, inputs):
    """Multiplies a signal by a kernel or another signal."""
    given = operands(call, inputs)
    if len(given) != 2:
        raise UnpredictableError("it has not two factors")
    ranks = [len(each.shape) for each in given]
    if type(call.layer).__name__ == "Einsum":
        letters = equation(call.layer.subscripts, ranks)
    elif type(call.layer).__name__ == "Dot" and ranks[1] != 2:
        raise UnpredictableError("its factors have more than two axes")
    else:
        letters = _matmul(ranks)
    return multiplied(call, given[0], given[1], letters)


def multiplied(call: Call, one: Operand, two: Operand, letters: Letters) -> LayerPropagation:
    """Multiplies two factors and sums over the axes that the result lacks."""
    if one.signal.values is not None:
        found = multiplied(call, two, one, Letters(letters.two, letters.one, letters.out))
        both = one.number is not None and two.number is not None
        return replace(found, backward=lambda g: found.backward(g)[::-1] if both else found.backward(g))
    if two.signal.values is not None:
        return by_kernel(one, two, letters)
    for first, second in ((letters.one, letters.two), (letters.two, letters.one)):
        if first[0] != letters.out[0] or second[0] != letters.out[0]:
            raise UnpredictableError("its factors do not have the examples in front")
    if isinstance(two.signal.note, Mixing):
        found = multiplied(call, two, one, Letters(letters.two, letters.one, letters.out))
        return replace(found, backward=lambda g: found.backward(g)[::-1])
    if isinstance(one.signal.note, Mixing):
        return mixed(one, two, letters)
    return scores(one, two, letters)
