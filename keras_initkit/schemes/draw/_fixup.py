"""Fixup: residual networks without normalization."""

from __future__ import annotations

import keras

from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.draw._auto import following_kernels
from keras_initkit.schemes.draw._draw_all import draw_biases
from keras_initkit.schemes.draw._kernel_draw import draw_kernel
from keras_initkit.structure._graph import Tensor
from keras_initkit.structure._layer_kinds import is_attention, is_normalization, is_recurrent, multiplies
from keras_initkit.structure._residual import Branch, residual_branches

_CHAINED = ("dense", "conv", "conv_transpose", "depthwise")


@register_scheme("fixup")
def fixup(plan: Plan) -> None:
    r"""He kernels, those of each of L residual branches scaled down, their last and the classifier's zero.

        W <- He * L^(-1 / (2 m - 2)),    W_m = 0    in a branch of m kernels;    W_classifier = 0

    One step of gradient descent then changes the network's output by an amount that does not grow with its depth.
    The paper's third rule, a scalar bias before each kernel and activation and one scalar multiplier in each branch,
    is part of the architecture: add it to the model where training at large rates needs it.

    Raises:
        ValueError: Where the model cannot be traced or has no residual branch, or a branch has fewer than two kernels,
            a normalization, or a layer that is not a chain of kernels (attention, recurrent). The message names it.

    References:

    - Zhang, Dauphin and Ma (2019), "Fixup initialization: Residual learning without normalization", section 3,
      https://arxiv.org/abs/1901.09321
    """
    branches = residual_branches(plan.model)
    if not branches:
        raise ValueError(
            f"fixup: {plan.model.name} has no residual branches: no sum of a tensor and what layers make of it. "
            "'auto' or 'lsuv' suit a plain network."
        )
    for branch in branches:
        _check(branch, {tensor for k in plan.kernels for call in plan.products_of(k) for tensor in call.outputs})
    scales = {id(k.variable): (len(branches), len(b.kernels)) for b in branches for k in b.kernels[:-1]}
    last = {id(branch.kernels[-1].variable) for branch in branches}
    following = following_kernels(plan)
    he = keras.initializers.HeNormal()
    for kernel in plan.kernels:
        variable, key = kernel.variable, id(kernel.variable)
        values = draw_kernel(kernel, he, plan.derive_seed(variable))
        if key in last:
            values, note = 0 * values, "last of its branch"
        elif following[key].where == "output" and not kernel.tied:
            values, note = 0 * values, "classifier"
        elif key in scales:
            count, m = scales[key]
            values, note = count ** (-1 / (2 * m - 2)) * values, f"1 of {m} in its branch"
        else:
            note = "outside the branches"
        plan.assign(variable, values)
        plan.note(variable, note)
    draw_biases(plan, plan.kernels)
    plan.notes.append(f"{len(branches)} residual branches.")


def _check(branch: Branch, multiplied: set[Tensor]) -> None:
    """Raises a ValueError unless a branch is a chain of kernels; `multiplied` are the products of weights."""
    place = f"fixup: the branch that ends in {branch.at!r}"
    for call in branch.calls:
        kind = type(call.layer).__name__
        if (
            call.role == "normalization"
            or is_normalization(call.layer)
            or isinstance(call.layer, keras.layers.SpectralNormalization)
        ):
            raise ValueError(
                f"{place} has a normalization, {call.path!r} ({kind}). Fixup takes the place of normalization: build "
                "the model without, or use 'auto' or 'lsuv'."
            )
        products = multiplies(call.layer) and not multiplied.issuperset(call.outputs)
        if products or is_attention(call.layer) or is_recurrent(call.layer):
            path = call.path.rpartition("/")[0] or call.path if products else call.path
            raise ValueError(f"{place} has {path!r} ({kind}), which is not a chain of kernels. Use 'auto' or 'lsuv'.")
    odd = next((kernel for kernel in branch.kernels if kernel.role not in _CHAINED), None)
    if odd is not None:
        raise ValueError(f"{place} has {odd.variable.path!r} ({odd.role}), which is not a chain of kernels.")
    if (m := len(branch.kernels)) < 2:
        raise ValueError(
            f"{place} has {m} kernel{'s' * (m != 1)}, expected two or more: with one, which is the last and so zero, "
            "none is left to scale."
        )
