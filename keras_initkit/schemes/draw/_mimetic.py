"""Mimetic attention: kernels whose products look like those of trained vision transformers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.draw._by_role import find_roles
from keras_initkit.schemes.draw._draw_all import draw_biases
from keras_initkit.structure import Kernel
from keras_initkit.structure._attention_units import HeadUnits, head_units
from keras_initkit.structure._calls import calls
from keras_initkit.structure._kernel import as_tuple
from keras_initkit.structure._transformer_roles import AttentionKernels


@register_scheme("mimetic")
def mimetic(
    plan: Plan,
    query_key: tuple[float, float] = (0.7, 0.7),
    value_output: tuple[float, float] = (0.4, 0.4),
) -> None:
    r"""Self-attention whose queries meet their own keys, and whose output takes what was read away from the stream.

        W_Q W_K^T ~ a_1 Z + b_1 I  in each head,    W_V W_O ~ a_2 Z - b_2 I,    Z_ij ~ N(0, 1 / d)

    A product is factored by its singular values, A = U S V^T, into U S^(1/2) and S^(1/2) V^T; of a head of k < d
    features the k largest are kept. All other weights stay: initialize the model by another scheme first. Meant for
    vision transformers on little data, whose trained attention looks like this; a patch attends to patches like it, and
    to near ones if tables of positions, which stay too, are sinusoidal.

    Args:
        plan: What may be set.
        query_key: Two floats, a_1 and b_1.
        value_output: Two floats, a_2 and b_2.

    Raises:
        ValueError: If the model cannot be traced or has no attention, an option is not two numbers, or no attention can
            be set: each reads another sequence, shares keys among heads, or has heads that the trace does not show.

    References:

    - Trockman and Kolter (2023), "Mimetic initialization of self-attention layers",
      https://arxiv.org/abs/2305.09828. The four defaults are those of public reimplementations for ViT-Tiny; what the
      paper prints could not be compared.
    """
    given = {"query_key": query_key, "value_output": value_output}
    for name, pair in given.items():
        numbers = isinstance(pair, tuple | list) and len(pair) == 2
        if not numbers or not all(isinstance(each, int | float) and math.isfinite(each) for each in pair):
            raise ValueError(f"{name}: got {pair!r}, expected two numbers, the scales of noise and identity.")
    roles = find_roles(plan, "mimetic", streams=False)
    found, settable = calls(plan.model), {id(kernel.variable) for kernel in plan.kernels}
    matrices: dict[int, tuple[Kernel, np.ndarray, str]] = {}
    reasons: dict[str, str] = {}
    for attention in roles.attentions:
        kernels = {name: getattr(attention, name) for name in ("query", "key", "value", "output")}
        units = head_units(found, attention)
        reason = _reason(attention, units)
        names = {id(each[0].variable) for each in kernels.values() if each is not None}
        if not reason and not names <= settable:
            reason = "one of its kernels is left out"
        if reason or units is None:
            reasons[attention.attention.path] = reason
            continue
        for kernel, _ in kernels.values():
            matrices.setdefault(id(kernel.variable), (kernel, _matrix(kernel), str(roles[kernel.variable])))
        _set_heads(plan, kernels, units, matrices, query_key, value_output)
    if not matrices:
        listed = "; ".join(f"{path!r}: {reason}" for path, reason in list(reasons.items())[:3])
        raise ValueError(f"mimetic: no attention of {plan.model.name} can be set. {listed}.")
    for kernel, matrix, role in matrices.values():
        plan.assign(kernel.variable, _unpacked(kernel, matrix))
        plan.note(kernel.variable, role)
    for kernel in plan.kernels:
        if id(kernel.variable) not in matrices:
            plan.skip(kernel.variable, "it belongs to no attention that 'mimetic' sets")
    draw_biases(plan, [kernel for kernel, _, _ in matrices.values()])
    plan.notes += [f"Left as it is: {path}, {reason}." for path, reason in reasons.items()]


def _reason(attention: AttentionKernels, units: HeadUnits | None) -> str:
    """Returns why an attention cannot be set; empty if it can."""
    if attention.cross:
        return "it reads another sequence"
    if units is None:
        return "the trace does not show which units its heads have"
    own = all(len(np.unique(each)) == each.size for each in (units.key, units.value))
    if not own or not len(units.query) == len(units.key) == len(units.value):
        return "several heads share their keys"
    parts = [each[0] for each in (attention.query, attention.key, attention.value, attention.output) if each]
    plain = all(kernel.role == "dense" and not kernel.batch_axes for kernel in parts)
    read = [as_tuple(kernel.in_axes) for kernel in parts[:3]]
    widths = {kernel.shape[axes[0]] for kernel, axes in zip(parts, read, strict=False) if len(axes) == 1}
    ends = {kernel.shape[axis] for kernel in parts[3:] for axis in as_tuple(kernel.out_axes)}
    return "" if plain and len(widths) == 1 and widths == ends else "it does not return the width that it reads"


def _set_heads(
    plan: Plan, kernels: dict[str, Any], units: HeadUnits, matrices: dict[int, tuple], *scales: tuple[float, float]
) -> None:
    """Writes the factors of an attention's products into the matrices of its kernels."""
    query, key, value, output = (matrices[id(kernels[name][0].variable)][1] for name in kernels)
    width = len(query)
    generator = np.random.default_rng(plan.derive_seed(kernels["query"][0].variable))

    def product(noise: float, identity: float) -> np.ndarray:
        return noise * generator.normal(size=(width, width)) / math.sqrt(width) + identity * np.eye(width)

    for asked, given in zip(units.query, units.key, strict=True):
        left, right = _factors(product(*scales[0]), len(asked), generator)
        query[:, asked], key[:, given] = left, right.T
    noise, identity = scales[1]
    left, right = _factors(product(noise, -identity), units.value.size, generator)
    value[:, units.value.ravel()] = left
    output[:] = right[units.output]


def _factors(product: np.ndarray, inner: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns matrices of shapes `(d, inner)` and `(inner, d)` whose product is the nearest to a square matrix.

    Where there are more inner units than singular values, these are spread over all by a random rotation.
    """
    left, values, right = np.linalg.svd(product)
    kept = min(inner, len(values))
    root = np.sqrt(values[:kept])
    left, right = left[:, :kept] * root, root[:, None] * right[:kept]
    if inner > kept:
        rotation = np.linalg.qr(generator.normal(size=(inner, kept)))[0].T
        return left @ rotation, rotation.T @ right
    return left, right


def _matrix(kernel: Kernel) -> np.ndarray:
    """Returns a kernel as a matrix of shape `(inputs, outputs)`."""
    values, inputs = to_numpy(kernel.variable).astype("float64"), as_tuple(kernel.in_axes)
    ordered = values.reshape(kernel.shape).transpose((*inputs, *as_tuple(kernel.out_axes)))
    return ordered.reshape(math.prod(kernel.shape[axis] for axis in inputs), -1)


def _unpacked(kernel: Kernel, matrix: np.ndarray) -> np.ndarray:
    """Returns a matrix of shape `(inputs, outputs)` as the kernel has it."""
    order = (*as_tuple(kernel.in_axes), *as_tuple(kernel.out_axes))
    values = matrix.reshape([kernel.shape[axis] for axis in order]).transpose(
        [order.index(i) for i in range(len(order))]
    )
    return (values / kernel.factor).reshape(tuple(kernel.variable.shape)).astype("float32")
