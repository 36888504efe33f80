"""Layer-sequential unit variance, in one forward pass."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_initkit.schemes.drawn import draw_all
from keras_initkit.schemes.plan import Plan
from keras_initkit.schemes.recurrent import CELLS, gate_pre_activations
from keras_initkit.schemes.registry import register_scheme
from keras_initkit.signal.state import replaced
from keras_initkit.structure import Kernel

_ROUNDS = 10  # the paper's T_max; a layer that is linear in its kernel needs one


@register_scheme("lsuv")
def lsuv(
    plan: Plan,
    target_variance: float = 1.0,
    tolerance: float = 0.01,
    center: bool = False,
    orthogonal: bool = True,
) -> None:
    r"""Orthogonal kernels, each scaled until its layer's pre-activations have unit variance on the data.

        W <- W sqrt(target / Var[z]),    z = W x + b over examples, positions and units

    The published algorithm runs the whole network again for every layer. Here a layer is scaled when the forward
    pass reaches it, and the pass goes on with what the scaled layer puts out: one pass, whatever the depth.

    Args:
        plan: what may be set, and the data.
        target_variance: of every pre-activation.
        tolerance: relative; a layer that is not linear in its kernels is scaled again until it is met.
        center: also subtracts from the bias, where there is one, the mean of its unit's pre-activations.
        orthogonal: draws orthogonal kernels first; else the kernels are scaled as they are.

    Source: Mishkin and Matas 2016, algorithm 1; Saxe et al. 2014 (orthogonal).
    """
    if not target_variance > 0:
        raise ValueError(f"target_variance: got {target_variance!r}, expected a positive variance.")
    if orthogonal:
        draw_all(plan, lambda layer: None if isinstance(layer, keras.layers.Embedding) else "orthogonal")
    owners: dict[str, list[Kernel]] = {}
    for kernel in plan.kernels:
        owners.setdefault(plan.path_of(kernel.variable), []).append(kernel)
    scaler = _Scaler(plan, target_variance, tolerance, center)
    # What is written inside stays inside: batch-norm averages and seeds are left alone, and kernels are set at the
    # end, all or none.
    with keras.StatelessScope() as scope, contextlib.ExitStack() as wrapped:
        for path, kernels in owners.items():
            layer = plan.layers[path]
            wrapped.enter_context(replaced(layer, "call", scaler.scaling(layer, path, kernels)))
        plan.model(plan.x, training=True)
    for variable in scaler.changed.values():
        plan.assign(variable, scope.get_current_value(variable))
    for path, kernels in owners.items():
        for kernel in kernels:
            if path not in scaler.done:
                plan.skip(kernel.variable, "the forward pass does not call its layer")


class _Scaler:
    """Scales each layer when it is called for the first time."""

    def __init__(self, plan: Plan, target: float, tolerance: float, center: bool):
        self._plan, self._target, self._tolerance, self._center = plan, target, tolerance, center
        self.done: set[str] = set()
        self.changed: dict[int, keras.Variable] = {}

    def scaling(self, layer: keras.layers.Layer, path: str, kernels: list[Kernel]) -> Callable:
        """The layer's `call`, that scales its kernels before it runs for the first time."""
        original = layer.call

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if path not in self.done:
                self.done.add(path)
                if isinstance(layer, keras.layers.RNN) and isinstance(layer.cell, CELLS):
                    self._scale(path, _gates(kernels), lambda: gate_pre_activations(layer, original, args, kwargs))
                else:
                    # Of a separable convolution the last kernel is scaled: it stands for their product.
                    groups = [[(kernels[-1], ...)]]
                    self._scale(path, groups, lambda: [pre_activation(layer, original, args, kwargs)])
                    if self._center and getattr(layer, "bias", None) is not None:
                        self._subtract_mean(layer, pre_activation(layer, original, args, kwargs))
            return original(*args, **kwargs)

        return call

    def _scale(self, path: str, groups: list, measure: Callable) -> None:
        """Scales groups of kernels (of parts of kernels: gates) until each has the target variance."""
        for round_ in range(_ROUNDS):
            variances = [_variance(z) for z in measure()]
            if not np.isfinite(variances).all():
                raise ValueError(
                    f"lsuv: the pre-activations of layer {path!r} are not finite. The layers before it have unit "
                    "variance, so look for NaN in the data, or for a layer without weights that divides or overflows."
                )
            if all(abs(v / self._target - 1) <= self._tolerance for v in variances):
                return
            for group, variance in zip(groups, variances, strict=True):
                for kernel, part in group:
                    if variance == 0:
                        if round_ == 0:
                            self._plan.skip(kernel.variable, "its pre-activations have variance 0: nothing to scale")
                        continue
                    self._multiply(kernel, part, math.sqrt(self._target / variance))

    def _multiply(self, kernel: Kernel, part: Any, factor: float) -> None:
        variable = kernel.variable
        values = np.array(keras.ops.convert_to_numpy(variable.value)).astype("float64")
        unpacked = values.reshape(kernel.shape)
        unpacked[part] *= factor
        variable.assign(unpacked.reshape(values.shape))
        self.changed[id(variable)] = variable

    def _subtract_mean(self, layer: keras.layers.Layer, z: np.ndarray) -> None:
        means = z.mean(axis=tuple(range(z.ndim - len(layer.bias.shape))))
        layer.bias.assign(layer.bias.value - means)
        self.changed[id(layer.bias)] = layer.bias


def pre_activation(layer: keras.layers.Layer, call: Callable, args: tuple, kwargs: dict) -> np.ndarray:
    """What a layer's activation is applied to; its output where it has none."""
    seen = []

    def listening(x: Any) -> Any:
        seen.append(x)
        return x

    if callable(getattr(layer, "activation", None)):
        with replaced(layer, "activation", listening):
            output = call(*args, **kwargs)
    else:
        output = call(*args, **kwargs)
    return np.asarray(keras.ops.convert_to_numpy(seen[0] if seen else output)).astype("float64")


def _variance(z: np.ndarray) -> float:
    return float(z.var())


def _gates(kernels: list[Kernel]) -> list[list[tuple[Kernel, Any]]]:
    """For each gate, its part of the input kernel and of the recurrent kernel."""
    if not kernels[0].gates:
        return [[(kernel, ...) for kernel in kernels]]
    return [[(kernel, (..., gate, slice(None))) for kernel in kernels] for gate in range(len(kernels[0].gates))]
