"""Variances of pre-activations and of their gradients, as the report on a scheme shows them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras

from keras_initkit._compat import is_compiled_with_loss
from keras_initkit.capture._probe import measure
from keras_initkit.inputs._specs import input_specs

EXAMPLES = 256  # enough for a variance to a few percent, few enough for a pass that nobody waits for
Variances = dict[str, tuple[float | None, float | None]]  # of the pre-activation, and of its gradient, by path


def measure_variances(model: keras.Model, paths: Collection[str], x: Any = None, y: Any = None) -> Variances:
    """Returns the variances of pre-activations (outputs, without an activation) of each layer's first call, by path.

    The first 256 of `x` count; `None` draws 32. Without labels or a compiled loss there are no gradients. Layers that
    are not called, or cannot be read, have no entry; nor has any layer where inputs cannot be drawn.
    """
    if x is None:
        try:
            report = measure(model, gradients=False, with_attention=False)
        except Exception:  # of any kind: the model says too little, or its own code wants other inputs
            return {}
    else:
        specs = input_specs(model)
        if not specs or all(spec.shape[0] is None for spec in specs):
            x, y = (keras.tree.map_structure(lambda each: None if each is None else each[:EXAMPLES], d) for d in (x, y))
        has_loss = y is not None and is_compiled_with_loss(model)
        report = measure(model, x, y if has_loss else None, gradients=has_loss, with_attention=False)
    variances: dict[str, dict[str, float]] = {path: {} for path in paths}
    for tap, moments in report.moments.items():
        if tap.layer in variances and not tap.call and tap.name in ("", "0"):
            variances[tap.layer].setdefault(tap.kind, moments.variance)
    result: Variances = {}
    for path, kinds in variances.items():
        kind = "pre_activation" if "pre_activation" in kinds else "output"
        if kind in kinds:
            result[path] = kinds[kind], kinds.get(f"{kind}_gradient")
    return result
