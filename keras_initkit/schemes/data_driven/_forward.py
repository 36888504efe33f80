"""A forward pass in which each layer is set when it is reached, before its output goes on."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_initkit._random_state import random_state_kept
from keras_initkit.capture._hooks import wrap_activation, wrap_call
from keras_initkit.capture.backends import probe_backend
from keras_initkit.initializers._core import wide
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes.data_driven._products import InnerProducts
from keras_initkit.schemes.data_driven._unit_means import bias_of
from keras_initkit.structure import Kernel
from keras_initkit.structure._layer_kinds import is_attention, is_recurrent, own_activation
from keras_initkit.structure._sublayers import parts_of_kind, sublayers, walk_layers


class Unreadable(Exception):
    """A tensor inside a loop or a compiled function has no numbers yet."""


@dataclass(frozen=True)
class LayerCall:
    """The first call, in a pass, of a layer whose kernels may be set, a recurrent layer's with those of its cell.

    `product` computes what a kernel makes inside the layer's `call`, where the layer does more than that; `None` where
    it is the layer's pre-activation.
    """

    path: str
    layer: keras.layers.Layer
    kernels: tuple[Kernel, ...]
    run: Callable
    args: tuple
    kwargs: Mapping[str, Any]
    product: Callable[[], list[Any]] | None = None

    @property
    def bias(self) -> keras.Variable | None:
        """The bias that the layer adds to the pre-activations."""
        return None if self.product is not None else bias_of(self.layer)

    def pre_activation(self) -> np.ndarray:
        """What the layer's activation is applied to, its output where it has none; in float64."""
        if self.product is not None:
            try:
                made = self.product()
            except Exception as error:  # of any kind: the operations were noted for symbolic tensors
                raise Unreadable(str(error)) from error
            return np.concatenate([host(each).ravel() for each in made])
        seen: list[Any] = []

        def keep(_: Callable, x: Any) -> Any:
            seen.append(x)
            return x

        with contextlib.ExitStack() as stack:
            if own_activation(self.layer) is not None:
                stack.enter_context(wrap_activation(self.layer, keep))
            output = self.run(*self.args, **self.kwargs)
        return host(seen[0] if seen else keras.tree.flatten(output)[0])


def host(tensor: Any) -> np.ndarray:
    """Returns a tensor's values in float64; raises `Unreadable` for values that a compiled function will have."""
    try:
        return np.asarray(keras.ops.convert_to_numpy(tensor)).astype("float64")
    except Exception as error:  # each backend has one of its own
        raise Unreadable(str(error)) from error


class Pass:
    """One forward pass; whatever is written in it stays in it, until `commit`.

    So batch-norm averages, seeds and the states of recurrent layers are left alone.
    """

    def __init__(self, plan: Plan):
        self._plan = plan
        self._factors: dict[int, tuple[Kernel, np.ndarray]] = {}
        self._values: dict[int, tuple[keras.Variable, np.ndarray]] = {}

    def run(self, x: Any, visit: Callable[[LayerCall], None]) -> None:
        """Runs the model on `x` as in training, and `visit` before each layer's first call.

        Layers that are not called, or cannot be read where they are called, are noted as such.
        """
        model = self._plan.model
        inner = [kernel for kernel in self._plan.kernels if self._plan.products_of(kernel) and not kernel.tied]
        if inner:
            shown = InnerProducts(model, x)
            inner = [kernel for kernel in inner if shown.are_shown(kernel.variable, kernel.layer)]
        owners = _owners(self._plan, inner)
        waiting = dict(owners)

        def visiting(layer: keras.layers.Layer, kernels: tuple[Kernel, ...]) -> Callable:
            path = self._plan.path_of(kernels[0].variable)

            def call(original: Callable, *args: Any, **kwargs: Any) -> Any:
                if waiting.pop(id(layer), None):
                    try:
                        visit(LayerCall(path, layer, kernels, original, args, kwargs))
                    except Unreadable:
                        self._note(kernels, "its layer runs inside a loop or a compiled function: not measured")
                return original(*args, **kwargs)

            return call

        def visiting_inside(layer: keras.layers.Layer, kernels: list[Kernel]) -> Callable:
            numbers = itertools.count()
            own = {id(kernel.variable): kernel for kernel in kernels}

            def call(original: Callable, *args: Any, **kwargs: Any) -> Any:
                number = next(numbers)
                for key, found in shown.inside(layer, number).items():
                    if key not in own:
                        continue
                    kernel = own.pop(key)
                    compute = functools.partial(shown.compute, found, layer, number, args, kwargs)
                    try:
                        path = self._plan.path_of(kernel.variable)
                        visit(LayerCall(path, layer, (kernel,), original, args, kwargs, compute))
                    except Unreadable:
                        self._note((kernel,), "what it makes inside its layer cannot be computed: not measured")
                return original(*args, **kwargs)

            return call

        with contextlib.ExitStack() as stack:
            stack.enter_context(random_state_kept())
            stack.enter_context(probe_backend().undisturbed(model))
            stack.enter_context(keras.StatelessScope())
            for _, layer in walk_layers(model):
                if isinstance(layer, keras.layers.TimeDistributed):
                    stack.enter_context(wrap_call(layer, _all_steps_first(layer)))
            for layer, kernels in owners.values():
                stack.enter_context(wrap_call(layer, visiting(layer, kernels)))
            for layer in {id(kernel.layer): kernel.layer for kernel in inner}.values():
                own = [kernel for kernel in inner if kernel.layer is layer]
                stack.enter_context(wrap_call(layer, visiting_inside(layer, own)))
            model(x, training=True)
        for _, kernels in waiting.values():
            self._note(kernels, "the forward pass does not call its layer: not measured")

    def multiply(self, kernel: Kernel, factor: Any) -> None:
        """Multiplies a kernel by what broadcasts to `kernel.shape`."""
        variable = kernel.variable
        # Mixed precision rounds what is read here; `commit` multiplies the weights themselves.
        values = host(variable.value).reshape(kernel.shape) * factor
        variable.assign(values.reshape(tuple(variable.shape)))
        before = self._factors.get(id(variable), (kernel, np.ones(())))[1]
        self._factors[id(variable)] = (kernel, before * factor)

    def set(self, variable: keras.Variable, values: np.ndarray) -> None:
        """Sets another weight, such as a bias."""
        variable.assign(values)
        self._values[id(variable)] = (variable, values)

    def commit(self) -> None:
        """Sets the model's own weights."""
        for kernel, factor in self._factors.values():
            variable = kernel.variable
            values = host(variable.value).reshape(kernel.shape) * factor
            self._plan.assign(variable, values.reshape(tuple(variable.shape)).astype(wide(variable.dtype)))
        for variable, values in self._values.values():
            self._plan.assign(variable, values.astype(wide(variable.dtype)))

    def _note(self, kernels: tuple[Kernel, ...], text: str) -> None:
        for kernel in kernels:
            self._plan.note(kernel.variable, text)


def _all_steps_first(layer: keras.layers.TimeDistributed) -> Callable:
    """Returns a wrapper of `call` that first runs the inner layer on all steps at once."""
    once: list[bool] = []

    def call(original: Callable, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not once:
            once.append(True)
            shape = tuple(inputs.shape)
            layer.layer(keras.ops.reshape(inputs, (shape[0] * shape[1], *shape[2:])))
        return original(inputs, *args, **kwargs)

    return call


def _owners(plan: Plan, inner: list[Kernel]) -> dict[int, tuple[keras.layers.Layer, tuple[Kernel, ...]]]:
    """The layers that are visited, by identity, each with its kernels; the others' kernels are noted."""
    recurrent = parts_of_kind(plan.model, is_recurrent)
    found: dict[int, tuple[keras.layers.Layer, tuple[Kernel, ...]]] = {}
    for kernel in plan.kernels:
        if kernel in inner:
            continue
        layer = recurrent.get(id(kernel.layer), kernel.layer)
        if layer is None or kernel.role == "embedding":
            if not kernel.tied:
                plan.skip(kernel.variable, "embedding: rows are looked up, not summed")
        elif is_attention(layer):
            plan.note(kernel.variable, "attention score kernel; not scaled")
        elif not is_recurrent(layer) and any(part.weights for part in sublayers(layer)):
            plan.note(
                kernel.variable, "its layer has sublayers with weights, so its pre-activation is not known; not scaled"
            )
        else:
            found[id(layer)] = (layer, (*found.get(id(layer), (layer, ()))[1], kernel))
    return found
