"""Schemes that draw: any initializer with layer-aware fans, and every weight anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_initkit.schemes.fresh import fresh_weights, python_random
from keras_initkit.schemes.kernel_draw import draw_kernel
from keras_initkit.schemes.plan import Plan
from keras_initkit.schemes.registry import register_scheme


def draw_all(plan: Plan, initializer: Any) -> None:
    """Every kernel by `initializer`, with the fans that its layer gives it; biases by their own initializers.

    Args:
        plan: what may be set.
        initializer: a Keras initializer by name, configuration, class or instance, or a function from a layer to one
            (or to `None`, for a layer to leave alone).
    """
    choose = _chooser(initializer)
    drawn: set[int] = set()
    for kernel in plan.kernels:
        chosen = choose(kernel.layer)
        if chosen is None:
            plan.skip(kernel.variable, "the function of the layer gave no initializer")
            continue
        plan.assign(kernel.variable, draw_kernel(kernel, chosen, plan.seed_of(kernel.variable)))
        drawn.add(id(kernel.variable))
    _set_biases(plan, drawn)


def _chooser(initializer: Any) -> Callable[[keras.layers.Layer | None], Any]:
    if callable(initializer) and not isinstance(initializer, keras.initializers.Initializer | type):
        return lambda layer: _instance(initializer(layer))
    instance = _instance(initializer)
    return lambda layer: instance


def _instance(initializer: Any) -> Any:
    if initializer is None:
        return None
    try:
        return keras.initializers.get(initializer)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"scheme: got {initializer!r}, expected an initializer by name, configuration or instance, "
            f"or a function from a layer to one ({error})."
        ) from error


def _set_biases(plan: Plan, drawn: set[int]) -> None:
    """The biases beside kernels that were drawn, as their layers' own configurations say."""
    for layer in plan.layers.values():
        beside = any(id(weight) in drawn for weight in layer.weights)
        biases = [index for index, weight in enumerate(layer.weights) if weight.name.split("/")[-1] == "bias"]
        if not (beside and biases):
            continue
        with python_random(plan.seed_of(layer.weights[biases[0]])):
            values = fresh_weights(layer)
        for index in biases:
            plan.assign(layer.weights[index], values[index])


@register_scheme("reset")
def reset(plan: Plan) -> None:
    """Every weight of the chosen layers anew, as their own configurations say: kernels, biases, normalisation state.

    An initializer with a seed of its own draws again what it has drawn before.
    """
    for layer in plan.layers.values():
        weights = layer.weights
        try:
            with python_random(plan.seed_of(weights[0])):
                values = fresh_weights(layer)
        except ValueError as error:
            for weight in weights:
                plan.skip(weight, str(error))
            continue
        for weight, value in zip(weights, values, strict=True):
            plan.assign(weight, value)
