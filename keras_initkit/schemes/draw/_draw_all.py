"""Draws every kernel from an initializer with layer-aware fans; resets every weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_initkit._random_state import python_random
from keras_initkit.initializers._lookup import get
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.draw._fresh import fresh_weights, redrawn_weights
from keras_initkit.schemes.draw._kernel_draw import draw_kernel, draw_plain
from keras_initkit.structure import Kernel
from keras_initkit.structure._weights import own_weights


def draw_all(plan: Plan, initializer: Any, kernels: list[Kernel] | None = None) -> None:
    """Draws every kernel, or some, from `initializer` with its own fans; biases from their own initializers.

    A function takes the layer that owns the kernel (the cell of an LSTM, each projection of a MultiHeadAttention), and
    returns an initializer, or `None` to leave the layer alone.
    """
    choose = initializer_chooser(initializer)
    drawn = []
    for kernel in plan.kernels if kernels is None else kernels:
        chosen = choose(kernel.layer)
        if chosen is None:
            plan.skip(kernel.variable, "the function of the layer gave no initializer")
            continue
        plan.assign(kernel.variable, draw_kernel(kernel, chosen, plan.derive_seed(kernel.variable)))
        drawn.append(kernel)
    draw_biases(plan, drawn)


def draw_biases(plan: Plan, kernels: list[Kernel]) -> None:
    """Draws the biases of these kernels' layers from their own initializers; the forget gate of an LSTM gets 1."""
    for owner in {id(kernel.layer): kernel.layer for kernel in kernels}.values():
        holders: list[Any] = [owner, getattr(owner, "cell", None)]
        for holder in holders:
            bias, initializer = getattr(holder, "bias", None), getattr(holder, "bias_initializer", None)
            if bias is None or initializer is None or not any(bias is weight for weight in holder.weights):
                continue
            shape = tuple(bias.shape)
            values = draw_plain(initializer, shape, bias.dtype, plan.derive_seed(bias))
            if getattr(holder, "unit_forget_bias", False):  # gates: input, forget, cell, output
                units = shape[-1] // 4
                values = np.concatenate([values[:units], np.ones_like(values[:units]), values[2 * units :]])
            plan.assign(bias, values)


def initializer_chooser(initializer: Any) -> Callable[[keras.layers.Layer | None], Any]:
    """Returns a function from a layer to its initializer, or to `None`."""
    if callable(initializer) and not isinstance(initializer, keras.initializers.Initializer | type):
        return lambda layer: None if (chosen := initializer(layer)) is None else get(chosen)
    instance = get(initializer)
    return lambda layer: instance


@register_scheme("reset")
def reset(plan: Plan) -> None:
    """Re-initializes every weight of the chosen layers from their configs: kernels, biases, moving statistics.

    An initializer with a seed repeats its first draw. A layer that cannot be created from its config has its `build`
    run once more, and each weight that it adds there is drawn from the initializer that it is added with; weights that
    come about in another way stay, and so does what `adapt` has learned from data.
    """
    for layer in plan.layers.values():
        weights = own_weights(layer)
        if hasattr(layer, "adapt"):
            for weight in weights:
                plan.skip(weight, "adapt() has learned it from data")
            continue
        try:
            with python_random(plan.derive_seed(weights[0])):
                values = fresh_weights(layer)
        except ValueError as error:
            redrawn = redrawn_weights(layer, plan.derive_seed)
            for weight in weights:
                if id(weight) in redrawn:
                    plan.assign(weight, redrawn[id(weight)])
                else:
                    plan.skip(weight, f"{error}; its build() does not show how this weight is drawn")
            continue
        own = {id(weight) for weight in weights}
        for weight, value in zip(layer.weights, values, strict=True):
            if id(weight) in own:
                plan.assign(weight, value)
