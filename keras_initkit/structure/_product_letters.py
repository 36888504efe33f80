"""The axes of products of two tensors."""

from __future__ import annotations

import string
from typing import NamedTuple

import keras

from keras_initkit.structure._graph import Call


class Letters(NamedTuple):
    """Axes of a product's factors and of what it makes, as in `einsum`."""

    one: str
    two: str
    out: str


def product_letters(call: Call) -> Letters | None:
    """Returns the axes of a product of two tensors; `None` of a call that is none."""
    if len(call.inputs) != 2:
        return None
    one, two = (len(tensor.shape) for tensor in call.inputs)
    name = type(call.layer).__name__
    if name == "Einsum":
        terms, _, out = call.layer.subscripts.replace(" ", "").partition("->")
        first, _, second = terms.partition(",")
        if "..." in terms:
            free = max(one - len(first.replace("...", "")), two - len(second.replace("...", "")))
            letters = [each for each in string.ascii_uppercase if each not in terms][:free]
            first = first.replace("...", "".join(letters[free - (one - len(first.replace("...", ""))) :]))
            second = second.replace("...", "".join(letters[free - (two - len(second.replace("...", ""))) :]))
            out = out.replace("...", "".join(letters))
        return Letters(first, second, out)
    if name == "Matmul" and one > 1 and two > 1:
        batch = string.ascii_uppercase[: max(one, two) - 2]
        return Letters(batch[len(batch) - (one - 2) :] + "ij", batch[len(batch) - (two - 2) :] + "jk", batch + "ik")
    if isinstance(call.layer, keras.layers.Dot):
        axes = call.layer.axes
        of_one, of_two = (axes, axes) if isinstance(axes, int) else axes
        first, second = [*"Bcdefgh"[:one]], ["B", *"mnopqrs"[: two - 1]]
        first[of_one % one] = second[of_two % two] = "z"
        rest = [each for each in (*first, *second[1:]) if each != "z"]
        return Letters("".join(first), "".join(second), "".join(rest))
    return None
