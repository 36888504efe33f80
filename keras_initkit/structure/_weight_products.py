"""The kernel that a product of a weight and a signal makes of the weight."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, Literal

import keras
import numpy as np

from keras_initkit.structure._graph import Call, Tensor
from keras_initkit.structure._kernel import Kernel, Role
from keras_initkit.structure._weight_views import View, memory_strides

AxisUse = Literal["in", "out", "batch", "field"]

CONVOLUTIONS = ("Conv", "DepthwiseConv", "ConvTranspose", "SeparableConv")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def describe_product(call: Call, view: View, tensor: Tensor) -> Kernel:
    """Returns the kernel that a product makes of a weight."""
    kind = type(call.layer).__name__
    if kind not in CONVOLUTIONS:
        return view_kernel(view, axis_uses(call, tensor), "dense")
    rank = len(view.sizes)
    operands = collect_operands(call)
    inputs, place = operands[0], next(place for place, each in enumerate(operands) if each is tensor)
    field: list[AxisUse] = ["field"] * (rank - 2)
    given = getattr(call.layer, "strides", 1)
    strides = tuple(given) if isinstance(given, tuple | list) else (given,) * (rank - 2)
    if kind == "DepthwiseConv" or (kind == "SeparableConv" and place == 1):
        return view_kernel(view, [*field, "batch", "out"], "depthwise", strides)
    if kind == "SeparableConv":
        return view_kernel(view, [*field, "in", "out"], "conv")
    if kind == "ConvTranspose":
        return view_kernel(view, [*field, "out", "in"], "conv_transpose", strides)
    data_format = getattr(call.layer, "data_format", None) or keras.config.image_data_format()
    channels = inputs.shape[1 if data_format == "channels_first" else -1]
    groups = (channels or view.sizes[-2]) // view.sizes[-2]
    if groups == 1:
        return view_kernel(view, [*field, "in", "out"], "conv", strides)
    return view_kernel(view.split(rank - 1, groups), [*field, "in", "batch", "out"], "conv", strides)


def axis_uses(call: Call, tensor: Any) -> list[AxisUse]:
    """Returns the use of each axis of an operand of a product that is no convolution.

    Axes in front of those that are summed over, as in `bi,eio->beo`, count kernels side by side.
    """
    operands, output = _subscripts(call)
    place = next(place for place, each in enumerate(collect_operands(call)) if each is tensor)
    own = operands[place]
    others = "".join(each for number, each in enumerate(operands) if number != place)
    uses: list[AxisUse] = []
    for letter in own:
        if letter in output:
            uses.append("batch" if letter in others else "out")
        else:
            uses.append("in" if letter in others else "field")
    if "in" in uses:
        first = uses.index("in")
        if "out" in uses[first:]:
            uses[:first] = ["batch" if use == "out" else use for use in uses[:first]]
    return uses


def _subscripts(call: Call) -> tuple[list[str], str]:
    """Returns a product as letters for the axes of each operand and of the output."""
    kind = type(call.layer).__name__
    shapes = [each.shape for each in collect_operands(call)]
    if kind == "Einsum":
        return _einsum_subscripts(call.layer.subscripts, [len(shape) for shape in shapes])
    one, other = (len(shape) for shape in shapes)
    if kind == "Tensordot":
        axes = call.layer.axes
        if isinstance(axes, int | np.integer):
            pairs = [(one - axes + step, step) for step in range(axes)]
        else:
            left, right = ([each] if isinstance(each, int | np.integer) else list(each) for each in axes)
            pairs = [(a % one, b % other) for a, b in zip(left, right, strict=True)]
    else:
        pairs = [(one - 1, max(other - 2, 0))]
    if kind == "Matmul":  # the axes in front belong together
        pairs += [(one - 3 - step, other - 3 - step) for step in range(min(one, other) - 2)]
    first = _LETTERS[:one]
    second = list(_LETTERS[one : one + other])
    for a, b in pairs:
        second[b] = first[a]
    summed = {first[a] for a, b in pairs[: len(pairs) if kind != "Matmul" else 1]}
    kept = dict.fromkeys([*first, *second])
    return [first, "".join(second)], "".join(letter for letter in kept if letter not in summed)


def _einsum_subscripts(subscripts: str, ranks: list[int]) -> tuple[list[str], str]:
    given, arrow, output = subscripts.replace(" ", "").partition("->")
    operands = given.split(",")
    spare = [letter for letter in _LETTERS.upper() + _LETTERS if letter not in given]
    widest = max((rank - len(each) + 3 for each, rank in zip(operands, ranks, strict=True) if "..." in each), default=0)
    dots = "".join(spare[:widest])
    written = []
    for each, rank in zip(operands, ranks, strict=True):
        own = rank - len(each) + 3 if "..." in each else 0
        written.append(each.replace("...", dots[widest - own :]))
    if not arrow:
        letters = "".join(operands)
        output = "..." + "".join(sorted(x for x in set(re.sub("[^A-Za-z]", "", letters)) if letters.count(x) == 1))
    return written, output.replace("...", dots)


def view_kernel(view: View, uses: Iterable[AxisUse], role: Role, strides: tuple[int, ...] = ()) -> Kernel:
    """Returns the kernel whose axes, as a view shows them, are used like this."""
    assert view.axes is not None
    variable, factor = view.variable, view.factor
    digits: list[tuple[int, int, AxisUse]] = []  # stride, number, use
    for axis, size, use in zip(view.axes, view.sizes, uses, strict=True):
        digits += [(stride, number, use) for number, stride in axis]
        own = math.prod(number for number, _ in axis)
        if use in ("in", "field") and axis:
            factor *= math.sqrt(size / own)  # a part of the axis, or more than it, is summed over
    shape = tuple(variable.shape)
    borders = set(memory_strides(shape))
    parts: list[tuple[int, AxisUse]] = []
    left = math.prod(shape)
    for stride, number, use in sorted(digits, key=lambda digit: -digit[0]):
        if stride * number < left:  # an axis that an index took one element of: a kernel for each index
            parts.append((left // (stride * number), "batch"))
        joins = parts and stride * number not in borders and parts[-1][1] == use
        parts[-1:] = [(parts[-1][0] * number, use)] if joins else [*parts[-1:], (number, use)]
        left = stride
    if left > 1:
        parts.append((left, "batch"))
    if [number for number, _ in parts] == [size for size in shape if size > 1]:
        rest = iter(parts)
        parts = [next(rest) if size > 1 else (1, "field") for size in shape]

    def axes(wanted: AxisUse) -> tuple[int, ...]:
        return tuple(axis for axis, (_, use) in enumerate(parts) if use == wanted)

    return Kernel(
        variable, axes("in"), axes("out"), axes("batch"), role, tuple(number for number, _ in parts), strides,
        factor=factor,
    )  # fmt: skip


def collect_operands(call: Call) -> list[Any]:
    """Returns the tensors and constant arrays that an operation reads."""
    return [each for each in keras.tree.flatten((call.args, dict(call.kwargs))) if hasattr(each, "shape")]
