"""What the presets for transformers share: roles, draws of a given deviation, and what the report says of each."""

from __future__ import annotations

import math
from typing import Literal

import keras
import numpy as np

from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes.draw._draw_all import draw_biases
from keras_initkit.schemes.draw._kernel_draw import draw_kernel
from keras_initkit.structure import Kernel
from keras_initkit.structure._layer_paths import held_weights
from keras_initkit.structure._transformer_roles import TransformerRoles

PACKED = ("query", "key", "value", "gate", "mlp in")


def find_roles(plan: Plan, scheme: str, streams: bool = True) -> TransformerRoles:
    """Returns the roles of the weights of a transformer, which must have residual `streams` unless False.

    Raises:
        ValueError: If the model cannot be traced, has no attention or no residual stream.
    """
    try:
        roles = TransformerRoles(plan.model)
    except ValueError as error:
        raise ValueError(f"{scheme}: the roles of the weights are not known. {error}") from error
    if not roles.attentions:
        raise ValueError(
            f"{scheme}: {plan.model.name} has no attention, no average by a softmax over products of queries and "
            "keys, expected a transformer. 'auto' or 'lsuv' suit other networks."
        )
    if streams and not roles.streams.branches:
        raise ValueError(
            f"{scheme}: {plan.model.name} has no residual stream, no sum of a tensor and what layers make of it, "
            "expected a transformer with one. 'auto' or 'lsuv' suit a plain network."
        )
    return roles


def checked_stddev(name: str, value: float) -> float:
    """Returns a standard deviation; raises a ValueError unless it is a number from 0."""
    known = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not known or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}: got {value!r}, expected a standard deviation, a number from 0.")
    return float(value)


def draw_stddev(
    plan: Plan, kernel: Kernel, stddev: float, note: str, distribution: Literal["normal", "uniform"] = "normal"
) -> None:
    """Draws a kernel with a standard deviation; one that its layer multiplies by a constant, so much larger."""
    stddev /= abs(kernel.factor) or 1.0
    bound = math.sqrt(3) * stddev
    normal = distribution == "normal"
    chosen = keras.initializers.RandomNormal(0.0, stddev) if normal else keras.initializers.RandomUniform(-bound, bound)
    values = draw_kernel(kernel, chosen, plan.derive_seed(kernel.variable))
    plan.assign(kernel.variable, values if stddev else np.zeros_like(values))
    plan.note(kernel.variable, note)


def xavier_stddev(kernel: Kernel, names: list[str]) -> float:
    """Returns sqrt(2 / (fan_in + fan_out)); of a kernel that several are packed in, with one's share of the outputs."""
    fan_in, fan_out = (kernel.output_use if kernel.tied else kernel).fans
    packed = sum(name in PACKED for name in names) or 1
    return math.sqrt(2.0 / (fan_in + fan_out / packed))


def finish(plan: Plan, roles: TransformerRoles) -> None:
    """Draws the biases of all kernels, and notes the roles of all other weights."""
    draw_biases(plan, plan.kernels)
    drawn = {id(kernel.variable) for kernel in plan.kernels}
    for _, _, weight in held_weights(plan.model):
        if id(weight) not in drawn:
            plan.note(weight, str(roles[weight]))
    streams = "stream" if len(roles.writes) == 1 else "streams"
    plan.notes.append(f"Additions to the residual {streams}: {', '.join(map(str, roles.writes))}.")
