"""Data-dependent initialization: units normalized on data, layers scaled until they learn at one rate."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_initkit._checks import checked_count, checked_number
from keras_initkit._random_state import random_state_kept
from keras_initkit.capture._objective import random_projection
from keras_initkit.capture.backends import is_signal, probe_backend
from keras_initkit.inputs._batches import disjoint_batches
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.data_driven._forward import LayerCall, Pass
from keras_initkit.schemes.data_driven._unit_means import bias_of, unit_means, unit_variances
from keras_initkit.schemes.draw._draw_all import draw_all
from keras_initkit.structure import Kernel
from keras_initkit.structure._layer_kinds import is_attention, is_recurrent
from keras_initkit.structure._sublayers import parts_of_kind

_DIRECTIONS = 8  # random losses; one alone shows the rates to some 10 %
_ROUNDING = 1e-12  # a variance below this part of the largest square is what rounding makes of a constant


@register_scheme("data_dependent")
def data_dependent(
    plan: Plan,
    beta: float = 0.0,
    between_layers: bool = True,
    tolerance: float = 0.05,
    rounds: int = 10,
    initializer: Any = "lecun_normal",
    batch_size: int | None = None,
) -> None:
    r"""Gives every unit mean beta and variance 1 on the data, then every layer the same relative rate of change.

    Within a layer, for each unit (or channel) i, in one forward pass:

        W_i <- W_i / sigma_i,    b_i <- beta - mu_i / sigma_i

    with the mean mu_i and standard deviation sigma_i of its pre-activations where b = 0. Between layers, with
    the rate of a layer whose kernel is W under a loss that weights the outputs by N(0, 1) numbers,

        C_k = sqrt(mean (dloss/dW_k)^2 / mean W_k^2),    W_k <- W_k sqrt(C_k / C),    C = geometric mean of C_k

    and biases such that each unit keeps its ratio of mean and standard deviation. Where activations are
    homogeneous (relu, leaky relu, none) and layers follow each other, scaling one by s divides its rate by s^2 and
    leaves the others' as they are, and the factors' product is 1: the network computes the same function after
    one round, up to rounding, and all rates agree. Elsewhere (tanh, normalization, residual branches) it does
    not compute the same function, and the rates are measured again for each round: it stops when they no longer
    come closer, keeps the round where they were closest, and says what is left.

    Recurrent layers, attention scores and embeddings are not part of it: they stay as they were, and are named.

    Args:
        plan: what may be set, and the data; without data, inputs are drawn from the model's input specification.
        beta: the mean of every unit's pre-activations, in units of their standard deviation. A unit without a
            bias keeps the mean that it has.
        between_layers: whether rates are equalized too.
        tolerance: relative, of the rates.
        rounds: at most so many backward passes.
        initializer: draws the kernels first: a name, configuration or instance; `None` takes them as they are.
        batch_size: how many of the examples, taken at random; `None` takes all.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    >>> x = 5 + np.random.default_rng(0).standard_normal((512, 8))
    >>> data_dependent(Plan(model, {"head": model.layers[0]}, x), beta=1.0)
    >>> z = keras.ops.convert_to_numpy(model(x))
    >>> (z.mean(0).round(3).tolist(), z.var(0).round(3).tolist())
    ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])

    References:

    - Krahenbuhl, Doersch, Donahue and Darrell (2016), "Data-dependent initializations of convolutional neural
      networks", algorithms 1 and 2, https://arxiv.org/abs/1511.06856
    """
    beta, tolerance = checked_number("beta", beta), checked_number("tolerance", tolerance, above=0)
    rounds = checked_count("rounds", rounds)
    cells = parts_of_kind(plan.model, is_recurrent)
    chosen = [
        k for k in plan.kernels if id(k.layer) not in cells and k.role != "embedding" and not is_attention(k.layer)
    ]
    if initializer is not None:
        draw_all(plan, initializer, chosen)
    for kernel in plan.kernels:
        if kernel not in chosen:
            plan.skip(kernel.variable, "data_dependent leaves embeddings, attention scores and recurrent cells alone")
    x = next(disjoint_batches(plan.model, plan.x, 1, batch_size, plan.seed))
    units = _Units(plan, {id(kernel.variable) for kernel in chosen}, beta)
    units.normalize(x)
    if between_layers and units.set:
        _equalize_rates(plan, units, x, tolerance, rounds)


class _Units:
    """The units of the layers that are set, as forward passes reach them."""

    def __init__(self, plan: Plan, chosen: set[int], beta: float):
        self._plan, self._chosen, self._beta = plan, chosen, beta
        self.set: list[Kernel] = []

    def normalize(self, x: Any) -> None:
        """Gives each unit mean beta and variance 1."""
        forward = Pass(self._plan)

        def visit(call: LayerCall) -> None:
            kernel = call.kernels[-1]  # of a separable convolution: it stands for their product
            if id(kernel.variable) not in self._chosen:
                return
            z = self._checked(call)
            variances = None if call.product is not None else unit_variances(call.layer, kernel, z)
            if variances is None:
                self._plan.note(kernel.variable, "the units of its kernel are not known; not scaled")
                return
            dead = variances <= _ROUNDING * np.abs(z).max(initial=0.0) ** 2
            if dead.any():
                text = f"{int(dead.sum())} of its {dead.size} units have variance 0: not scaled"
                self._plan.note(kernel.variable, text)
            forward.multiply(kernel, 1 / np.sqrt(np.where(dead, 1.0, variances)))
            if not dead.all():
                self.set.append(kernel)
            self._center(forward, call)

        forward.run(x, visit)
        forward.commit()

    def center(self, x: Any) -> None:
        """Gives each unit mean beta again, in units of its layer's standard deviation."""
        forward = Pass(self._plan)

        def visit(call: LayerCall) -> None:
            if id(call.kernels[-1].variable) in self._chosen:
                self._center(forward, call)

        forward.run(x, visit)
        forward.commit()

    def _center(self, forward: Pass, call: LayerCall) -> None:
        bias = call.bias
        if bias is None:
            return
        z = self._checked(call)
        means = unit_means(call.layer, z)
        deviation = math.sqrt(((z - means) ** 2).mean())
        change = (self._beta * deviation - means).reshape(tuple(bias.shape))
        forward.set(bias, np.asarray(keras.ops.convert_to_numpy(bias.value)) + change)

    def _checked(self, call: LayerCall) -> np.ndarray:
        z = call.pre_activation()
        if not np.isfinite(z).all():
            raise ValueError(
                f"data_dependent: the pre-activations of layer {call.path!r} are not finite. The units before it are "
                "normalized, so look for a layer without kernels that divides or overflows, or scale its input."
            )
        return z


def _equalize_rates(plan: Plan, units: _Units, x: Any, tolerance: float, rounds: int) -> None:
    kernels = units.set
    best, best_values = math.inf, None
    biases = [w for layer in {id(k.layer): k.layer for k in kernels}.values() if (w := bias_of(layer)) is not None]
    variables = [*[kernel.variable for kernel in kernels], *biases]
    for _ in range(rounds):
        rates = _rates(plan, kernels, x)
        reached = rates > 0
        logs = np.log(np.where(reached, rates, 1.0))
        logs = np.where(reached, logs - logs[reached].mean(), 0.0) if reached.any() else logs
        for kernel in [k for k, any_gradient in zip(kernels, reached, strict=True) if not any_gradient]:
            plan.note(kernel.variable, "no gradient reaches it: scaled by unit alone")
        spread = float(np.abs(logs).max())
        if spread > 0.9 * best:  # no closer than before, or hardly
            break
        if spread < best:
            best, best_values = spread, [_values(variable) for variable in variables]
        if spread <= math.log1p(tolerance):
            return
        for kernel, log in zip(kernels, logs, strict=True):
            plan.assign(kernel.variable, _values(kernel.variable) * math.exp(log / 2))
        units.center(x)
    for variable, values in zip(variables, best_values or [], strict=True):
        plan.assign(variable, values)
    for kernel in kernels:
        plan.note(kernel.variable, f"the layers' rates of change agree to a factor {math.exp(best):.3g}, no closer")


def _rates(plan: Plan, kernels: list[Kernel], x: Any) -> np.ndarray:
    """Each kernel's rate of change, with the same random losses every time."""
    squares = np.mean([_squares(plan, kernels, x, direction) for direction in range(_DIRECTIONS)], axis=0)
    rates = np.sqrt(squares / [np.mean(_values(kernel.variable).astype("float64") ** 2) for kernel in kernels])
    if not np.isfinite(rates).all():
        place = plan.path_of(kernels[int(np.argmin(np.isfinite(rates)))].variable)
        raise ValueError(f"data_dependent: the gradient of layer {place!r} is not finite.")
    return rates


def _squares(plan: Plan, kernels: list[Kernel], x: Any, direction: int) -> np.ndarray:
    """The mean square of each kernel's gradient."""
    model = plan.model

    def loss(flat: list[Any]) -> Any:
        outputs = model(keras.tree.pack_sequence_as(x, flat), training=True)
        signals = [each for each in keras.tree.flatten(outputs) if is_signal(each)]
        return random_projection(signals, np.random.default_rng([plan.seed, direction]))

    with random_state_kept(), probe_backend().undisturbed(model):
        variables = [kernel.variable for kernel in kernels]
        _, gradients = probe_backend().differentiate(loss, keras.tree.flatten(x), variables)
    return np.array([0.0 if g is None else np.mean(np.asarray(g).astype("float64") ** 2) for g in gradients])


def _values(variable: keras.Variable) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable.value))
