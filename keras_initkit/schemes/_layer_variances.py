"""Variances of pre-activations and of their gradients, as the report on a scheme shows them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras

from keras_initkit._compat import is_compiled_with_loss
from keras_initkit.capture._probe import measure
from keras_initkit.inputs._specs import input_specs
from keras_initkit.report._report import SignalReport

EXAMPLES = 256  # enough for a variance to a few percent, few enough for a pass that nobody waits for
Variances = dict[str, tuple[float | None, float | None]]  # of the pre-activation, and of its gradient, by path


def measure_signal(model: keras.Model, x: Any = None, y: Any = None) -> SignalReport | None:
    """Returns a report of the first 256 of `x`; `None` draws 32. Without labels or a loss there are no gradients.

    Returns `None` where inputs cannot be drawn.
    """
    if x is None:
        try:
            return measure(model, gradients=False, with_attention=False)
        except Exception:  # of any kind: the model says too little, or its own code wants other inputs
            return None
    specs = input_specs(model)
    if not specs or all(spec.shape[0] is None for spec in specs):
        x, y = (keras.tree.map_structure(lambda each: None if each is None else each[:EXAMPLES], d) for d in (x, y))
    has_loss = y is not None and is_compiled_with_loss(model)
    return measure(model, x, y if has_loss else None, gradients=has_loss, with_attention=False)


def read_variances(report: SignalReport | None, paths: Collection[str]) -> Variances:
    """Returns the variances of pre-activations (outputs, without an activation) of each layer's first call, by path.

    Layers that are not called, or could not be read, have no entry.
    """
    if report is None:
        return {}
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
