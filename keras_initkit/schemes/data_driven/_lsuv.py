"""Layer-sequential unit variance, in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from keras_initkit._checks import checked_number
from keras_initkit.inputs._batches import disjoint_batches
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.data_driven._forward import LayerCall, Pass
from keras_initkit.schemes.data_driven._unit_means import unit_means
from keras_initkit.schemes.draw._draw_all import draw_all
from keras_initkit.schemes.draw._recurrent import gate_parts, gate_pre_activations
from keras_initkit.structure import Kernel
from keras_initkit.structure._kernel import as_tuple
from keras_initkit.structure._layer_kinds import is_recurrent

_ROUNDS = 10  # the paper's T_max; a layer that is linear in its kernel needs one
# A variance below this part of the largest square is what rounding makes of a constant.
_ROUNDING = 1e-12
_SLOPES = (0.5, 40.0)

# Kernels, or gates of them, that share one factor: pairs of a kernel and an index into its `shape`.
Group = list[tuple[Kernel, Any]]


@register_scheme("lsuv")
def lsuv(
    plan: Plan,
    target_variance: float = 1.0,
    tolerance: float = 0.01,
    center: bool = False,
    initializer: Any = "orthogonal",
    batches: int = 1,
    batch_size: int | None = None,
) -> None:
    r"""Orthogonal kernels, each scaled until its layer's pre-activations have unit variance on the data.

        W <- W sqrt(target / Var[z]),    z = W x + b over examples, positions and units

    The published algorithm runs the whole network again for every layer. Here a layer is scaled when the forward
    pass reaches it, and the pass goes on with what the scaled layer puts out: one pass, whatever the depth. A
    layer that is called several times is scaled at the first. Each gate of a recurrent layer has its own factor,
    for its parts of both kernels, and is measured over all steps that are not masked.

    The pass runs as in training, since that is where the signal must survive: with the batch's own statistics in
    BatchNormalization, and with dropout (but not inside recurrent cells).

    Several batches take one pass each. The first sets the variance, and after the k-th the factors stand at the
    mean of what the batches ask for:

        W <- W sqrt(target / ((1 - 1/k) target + Var_k[z] / k))

    Args:
        plan: what may be set, and the data; without data, inputs are drawn from the model's input specification.
        target_variance: of every pre-activation.
        tolerance: relative; a layer that is not linear in its kernels is scaled again until it is met.
        center: also subtracts from the bias, where there is one, the mean of each unit's pre-activations. The
            gates of recurrent layers keep theirs.
        initializer: draws the kernels first: a name, configuration or instance; `None` scales them as they are.
        batches: number of passes.
        batch_size: examples in each pass; `None` shares all data out among them.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64, name="hidden")])
    >>> x = 5 * np.random.default_rng(0).standard_normal((512, 8))
    >>> lsuv(Plan(model, {"hidden": model.layers[0]}, x))
    >>> round(float(np.var(keras.ops.convert_to_numpy(model(x)))), 3)
    1.0

    References:

    - Mishkin and Matas (2016), "All you need is a good init", algorithm 1, https://arxiv.org/abs/1511.06422
    - Saxe, McClelland and Ganguli (2014), "Exact solutions to the nonlinear dynamics of learning in deep linear neural
      networks" (orthogonal kernels), https://arxiv.org/abs/1312.6120
    """
    target_variance = checked_number("target_variance", target_variance, above=0)
    tolerance = checked_number("tolerance", tolerance, above=0)
    if initializer is not None:
        draw_all(plan, initializer, [kernel for kernel in plan.kernels if kernel.role != "embedding" or kernel.tied])
    for number, x in enumerate(disjoint_batches(plan.model, plan.x, batches, batch_size, plan.seed), start=1):
        scaler = _Scaler(plan, target_variance, tolerance, center, number)
        scaler.forward.run(x, scaler.visit)
        scaler.forward.commit()


class _Scaler:
    """Scales each layer that the `number`-th pass reaches."""

    def __init__(self, plan: Plan, target: float, tolerance: float, center: bool, number: int):
        self._plan, self._target, self._tolerance, self._center = plan, target, tolerance, center
        self._number = number
        self.forward = Pass(plan)

    def visit(self, call: LayerCall) -> None:
        """Sets a layer's kernels, and its bias if asked to."""
        if is_recurrent(call.layer):
            groups = gate_parts(call.layer, call.kernels)
            if groups is None:
                cell = type(call.layer.cell).__name__
                self._note(call.kernels, f"the gates of a {cell} are not known: not scaled")
                return
            self._scale(call, groups, lambda: gate_pre_activations(call))
            return
        bias = call.bias if self._center else None

        def measure() -> list[np.ndarray]:
            z = call.pre_activation()
            return [z if bias is None else z - unit_means(call.layer, z)]

        # Of a separable convolution the last kernel is scaled: it stands for their product.
        self._scale(call, [[(call.kernels[-1], ...)]], measure)
        if bias is not None:
            means = unit_means(call.layer, call.pre_activation()).reshape(tuple(bias.shape))
            self.forward.set(bias, np.asarray(keras.ops.convert_to_numpy(bias.value)) - means / self._number)

    def _scale(self, call: LayerCall, groups: list[Group], measure: Callable[[], list[np.ndarray]]) -> None:
        """Has each group's pre-activations take the target variance; in a later pass, by its share alone."""
        variances, dead = self._variances(call, measure())
        if not np.isfinite(variances).all():
            raise ValueError(
                f"lsuv: the pre-activations of layer {call.path!r} are not finite. The layers before it have variance "
                f"{self._target:g}, so look for a layer without kernels that divides or overflows, or scale its input."
            )
        for group, is_dead in zip(groups, dead, strict=True):
            if is_dead:
                self._note([kernel for kernel, _ in group], "its pre-activations have variance 0: not scaled")
        if self._number > 1:
            share = 1 / self._number
            self._multiply(groups, ((1 - share) + share * variances / self._target) ** -0.5)
            return
        self._iterate(call, groups, measure, variances, dead)

    def _iterate(
        self, call: LayerCall, groups: list[Group], measure: Callable, variances: np.ndarray, dead: np.ndarray
    ) -> None:
        """A secant in log variance against log factor: its slope is 2 where a layer is linear in its kernels."""
        slopes, scale = np.full(len(groups), 2.0), np.ones(len(groups))
        first = error = np.log(variances / self._target)
        best, best_scale = error, scale
        for _ in range(_ROUNDS):
            if self._is_met(error):
                return
            step = np.where(dead, 0.0, -error / slopes)
            self._multiply(groups, np.exp(step))
            scale, before = scale * np.exp(step), error
            variances, _ = self._variances(call, measure(), dead)
            if not (np.isfinite(variances) & (variances > 0)).all():  # of a recurrent layer that explodes
                break
            error = np.log(variances / self._target)
            if np.abs(error).max() < np.abs(best).max():
                best, best_scale = error, scale
            moved = np.abs(step) > 0.05  # else the other gates have moved it more than its own factor
            slopes[moved] = np.clip((error - before)[moved] / step[moved], *_SLOPES)
        if self._is_met(error):
            return
        if np.abs(best).max() > np.abs(first).max() / 2:
            best, best_scale = first, np.ones(len(groups))
        self._multiply(groups, best_scale / scale)
        reached = ", ".join(f"{variance:.3g}" for variance in self._target * np.exp(best))
        verb = "scaled" if best is not first else "not scaled"
        text = f"{verb}: no factor was found that brings the variance to the target ({reached})"
        self._note([kernel for group in groups for kernel, _ in group], text)

    def _note(self, kernels: Iterable[Kernel], text: str) -> None:
        for kernel in kernels:
            self._plan.note(kernel.variable, text)

    def _is_met(self, error: np.ndarray) -> bool:
        return bool((np.abs(np.expm1(error)) <= self._tolerance).all())

    def _variances(
        self, call: LayerCall, several: list[np.ndarray], dead: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The variances, and which of them are 0; these count as met."""
        variances = np.array([z.var() if z.size else 0.0 for z in several])
        if dead is None:
            largest = np.array([np.abs(z).max(initial=0.0) for z in several])
            dead = variances <= _ROUNDING * largest**2
        return np.where(dead, self._target, variances), dead

    def _multiply(self, groups: list[Group], factors: np.ndarray) -> None:
        together: dict[int, tuple[Kernel, np.ndarray]] = {}
        for group, factor in zip(groups, factors, strict=True):
            for kernel, part in group:
                _, array = together.setdefault(id(kernel.variable), (kernel, np.ones([1] * len(kernel.shape))))
                if part is not ...:
                    array = np.broadcast_to(array, _gate_shape(kernel)).copy()
                array[part] *= factor
                together[id(kernel.variable)] = (kernel, array)
        for kernel, array in together.values():
            self.forward.multiply(kernel, array)


def _gate_shape(kernel: Kernel) -> list[int]:
    """Broadcasts to `kernel.shape`, with an element for each gate."""
    return [size if axis in as_tuple(kernel.batch_axes) else 1 for axis, size in enumerate(kernel.shape)]
