"""Variance of signal and gradient at the layers whose kernels a scheme sets."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_initkit.capture._objective import is_compiled_with_loss
from keras_initkit.capture._probe import probe
from keras_initkit.capture._random_state import random_state_kept, replaced
from keras_initkit.capture.backends import probe_backend
from keras_initkit.inputs._specs import draw_inputs, input_specs
from keras_initkit.structure._layer_kinds import is_opaque, own_activation

EXAMPLES = 256  # enough for a variance to a few percent, few enough for a pass that nobody waits for
DRAWN = 32
Variances = dict[str, tuple[float | None, float | None]]


def measured(model: keras.Model, layers: Mapping[str, keras.layers.Layer], x: Any, y: Any = None) -> Variances:
    """Variance of each layer's pre-activations (outputs, without an activation) and of the gradients there.

    Args:
        model: the model; it is left as it was.
        layers: which layers, by path.
        x: the data; the first 256 examples count.
        y: labels, or `None`: then there are no gradients, nor are there for a model without a loss.

    Returns:
        Both variances by path, in the first call of each layer. One that is not called, or where it cannot be
        read, has no entry.
    """
    specs = input_specs(model)
    if not specs or all(spec.shape[0] is None for spec in specs):
        x, y = (keras.tree.map_structure(lambda each: None if each is None else each[:EXAMPLES], d) for d in (x, y))
    if y is not None and is_compiled_with_loss(model):
        return _probed(model, layers, x, y)
    return {path: (variance, None) for path, variance in _forward(model, layers, x).items()}


def measured_on_drawn(
    model: keras.Model, layers: Mapping[str, keras.layers.Layer], x: None = None, y: None = None
) -> Variances:
    """The same on inputs drawn from the model's specification; nothing where it does not take them."""
    try:
        return measured(model, layers, draw_inputs(model, DRAWN))
    except Exception:  # of whatever kind: the model says too little, or its own code wants other inputs
        return {}


def _probed(model: keras.Model, layers: Mapping[str, keras.layers.Layer], x: Any, y: Any) -> Variances:
    moments = probe(model, x, y).moments
    first: dict[str, dict[str, float]] = {path: {} for path in layers}
    for tap, values in moments.items():
        if tap.layer in first and not tap.call and tap.name in ("", "0"):
            first[tap.layer].setdefault(tap.kind, values.variance)
    result: Variances = {}
    for path, kinds in first.items():
        kind = "pre_activation" if "pre_activation" in kinds else "output"
        if kind in kinds:
            result[path] = kinds[kind], kinds.get(f"{kind}_gradient")
    return result


def _forward(model: keras.Model, layers: Mapping[str, keras.layers.Layer], x: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    # Nothing that the pass writes (averages, seeds) stays.
    with contextlib.ExitStack() as stack:
        for context in (random_state_kept(), probe_backend().undisturbed(model), keras.StatelessScope()):
            stack.enter_context(context)
        for path, layer in layers.items():
            stack.enter_context(replaced(layer, "call", _listening(layer, path, found)))
        model(keras.tree.map_structure(keras.ops.convert_to_tensor, x), training=True)
    return found


def _listening(layer: keras.layers.Layer, path: str, found: dict[str, float]) -> Callable:
    """The layer's `call`; the first time, the variance of what its activation is applied to is kept."""
    original: Callable = layer.call
    activation = own_activation(layer)

    def keep(tensor: Any) -> None:
        with contextlib.suppress(Exception):  # of whatever kind: a tensor of a loop that is traced has no values
            found.setdefault(path, float(np.var(np.asarray(keras.ops.convert_to_numpy(tensor)).astype("float64"))))

    def listening(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        keep(tensor)
        return activation(tensor, *args, **kwargs)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if path in found:
            return original(*args, **kwargs)
        if activation is not None and not is_opaque(layer):
            with replaced(layer, "activation", functools.wraps(activation)(listening)):
                output = original(*args, **kwargs)
        else:
            output = original(*args, **kwargs)
        keep(keras.tree.flatten(output)[0])
        return output

    return call
