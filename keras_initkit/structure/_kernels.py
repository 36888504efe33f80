"""The kernels of a layer: described for its class, or as the trace shows what is done with its weights."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace

import keras

from keras_initkit.structure._calls import calls
from keras_initkit.structure._graph import Call
from keras_initkit.structure._kernel import Kernel
from keras_initkit.structure._layer_kinds import class_of_call, is_elementary, quantization_mode
from keras_initkit.structure._layer_paths import held_weights
from keras_initkit.structure._separate_parts import is_built
from keras_initkit.structure._sublayers import sublayers, walk_layers
from keras_initkit.structure._weight_uses import FIXED_TABLE, Use, trace_uses
from keras_initkit.structure._weights import own_weights

Describe = Callable[[keras.Layer], Iterable[Kernel]]

_DESCRIPTIONS: dict[type[keras.Layer], Describe] = {}
_NOT_KNOWN = "how its layer uses it is not known"


def register_kernels(layer_class: type[keras.Layer], describe: Describe | None = None) -> Callable:
    """Registers a function that describes the kernels of a layer class and its subclasses.

    Args:
        layer_class: Subclass of `keras.Layer`. Registering it again replaces the description.
        describe: Function from a built layer to a list of its `Kernel` objects, without those of its sublayers,
            which are found anyway; an empty list if it has none. If left out, a decorator is returned.

    Returns:
        `describe`, or the decorator.

    Raises:
        ValueError: If `layer_class` is not a Keras layer class, or `describe` is not callable.

    Example:

    >>> class Bilinear(keras.layers.Layer):  # y_k = sum_ij x_i w_ijk z_j
    ...     def build(self, shape):
    ...         self.w = self.add_weight(shape=(shape[0][-1], shape[1][-1], 8))
    >>> @register_kernels(Bilinear)
    ... def bilinear_kernels(layer):
    ...     return [Kernel(layer.w, in_axes=(0, 1), out_axes=2)]
    >>> layer = Bilinear()
    >>> layer.build([(None, 4), (None, 5)])
    >>> kernels(layer)[0].fans
    Fans(fan_in=20.0, fan_out=8.0)
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise ValueError(f"layer_class: got {layer_class!r}, expected a subclass of keras.Layer.")
    if describe is None:
        return lambda function: register_kernels(layer_class, function)
    if not callable(describe):
        raise ValueError(f"describe: got {describe!r}, expected a function from a layer to a list of Kernel.")
    _DESCRIPTIONS[layer_class] = describe
    return describe


def described_class(layer_class: type[keras.Layer]) -> type[keras.Layer] | None:
    """Returns the nearest base of a layer class that a function is registered for; `None` if there is none."""
    return next((base for base in layer_class.__mro__ if base in _DESCRIPTIONS), None)


def description(layer_class: type[keras.Layer]) -> Describe | None:
    """Returns the function registered for a layer class or its nearest base; `None` if there is none."""
    base = described_class(layer_class)
    return None if base is None else _DESCRIPTIONS[base]


def kernels(layer: keras.Layer) -> list[Kernel]:
    """Returns every kernel of a built layer or model, sublayers included, in the order in which Keras tracks them.

    Layers of Keras' own and registered ones are described. What other layers do with their weights is read from a
    trace of the layer or model: a weight that is multiplied into a signal is a kernel, with the axes that the product
    gives it, one in which rows are looked up an embedding, and one that is added, multiplied element by element or
    joined to a signal neither. Where that is not known, a weight of rank 2 or more has the role `"unknown"`, and axes
    as in a Dense or Conv layer.

    A kernel that several layers share, or a layer that is used several times, is listed once. Layers quantized to
    integers are skipped, for their packed and scaled values cannot be re-initialized.

    Args:
        layer: A built layer or model.

    Raises:
        ValueError: If the layer is not built, or a registered function does not return a list of `Kernel`.
    """
    return list(WeightRoles(layer).kernels)


class WeightRoles:
    """What is done with each weight of a built layer or model.

    Args:
        layer: A built layer or model.

    Attributes:
        kernels: List of `Kernel`, as `structure.kernels` returns it.
        products: Dictionary from the identity of a kernel's variable to the `Call`s that multiply it, where the trace
            shows them: of kernels that no description tells, and of tied tables.
        reasons: Dictionary from the identity of a weight that is no kernel to why it is none, for a reader; of the
            weights that no description covers.

    Raises:
        ValueError: As `kernels`.
    """

    def __init__(self, layer: keras.Layer):
        if not isinstance(layer, keras.Layer):
            raise ValueError(f"layer: got {layer!r}, expected a Keras layer or model.")
        if not is_built(layer):
            raise ValueError(
                f"layer: got {layer.name}, which is not built, expected a built layer. Call it on data, or build() it."
            )
        self._layer = layer
        self._traced: dict[int, dict[int, list[Use]]] = {}
        self.products: dict[int, list[Call]] = {}
        self.reasons: dict[int, str] = {}
        found: dict[int, Kernel] = {}
        for _, part in walk_layers(layer):
            for kernel in self._own_kernels(part, found):
                found.setdefault(id(kernel.variable), replace(kernel, layer=part))
        self.kernels = list(found.values())

    def _own_kernels(self, layer: keras.Layer, found: Container[int]) -> list[Kernel]:
        """Returns the kernels of a layer without those of its sublayers."""
        if quantization_mode(layer) not in (None, "float8"):
            return []
        base = described_class(type(layer))
        holds = base is not None and _still_holds(base, type(layer))
        described = _described(layer, base, must=holds) if base is not None and layer.built else []
        if holds:
            return [self._with_uses(kernel, layer) for kernel in described if not self._is_fixed(kernel, layer)]
        known = {id(kernel.variable): kernel for kernel in described}
        kernels = []
        for variable in own_weights(layer, into_loops=True):
            if id(variable) in found or not keras.backend.is_float_dtype(variable.dtype):
                continue
            if layer.trainable and not variable.trainable:  # state is no kernel; in a frozen layer they look alike
                self.reasons[id(variable)] = "it does not train"
                continue
            kernel = self._kernel_in_trace(layer, variable, known.get(id(variable)))
            if kernel is not None:
                kernels.append(self._with_uses(kernel, layer))
        return kernels

    def _kernel_in_trace(self, layer: keras.Layer, variable: keras.Variable, known: Kernel | None) -> Kernel | None:
        """Returns the kernel that the trace shows a weight to be; `None`, with a reason, where it is none.

        Where the trace does not show it, that is `known`, or one of an unknown role.
        """
        uses = self._uses(layer, variable)
        shown = {use.how: use.kernel for use in reversed(uses)}
        kernel = shown.get("looked up") or shown.get("multiplied")
        if kernel is not None:
            gated = known is not None and bool(known.gates) and known.fans.fan_in == kernel.fans.fan_in
            return known if gated else kernel  # what is packed in an axis, a description alone tells
        unclear = next((use.reason for use in uses if use.how == "unknown"), "" if uses else _NOT_KNOWN)
        if unclear and (known is not None or len(variable.shape) > 1):
            self.reasons[id(variable)] = unclear
            return Kernel(variable, role="unknown") if known is None else replace(known, role="unknown", gates=())
        self.reasons[id(variable)] = unclear or "; ".join(dict.fromkeys(use.reason for use in uses))
        return None

    def _with_uses(self, kernel: Kernel, layer: keras.Layer) -> Kernel:
        """Notes where a kernel is multiplied, and whether it is a table with two uses."""
        is_table = kernel.role == "embedding" and bool(kernel.out_axes)
        if not is_table and is_elementary(layer):
            return kernel
        products = [use.call for use in self._uses(layer, kernel.variable) if use.how == "multiplied"]
        if products:
            self.products[id(kernel.variable)] = products
        if is_table and (products or getattr(layer, "tie_weights", False)):
            return replace(kernel, tied=True)
        return kernel

    def _is_fixed(self, kernel: Kernel, layer: keras.Layer) -> bool:
        """Whether a described table is seen to be read at places that do not depend on data."""
        if kernel.role != "embedding" or layer is self._layer:
            return False
        uses = self._traced_uses(self._layer).get(id(kernel.variable), [])
        holders = [part for _, part in walk_layers(self._layer) if any(each is layer for each in sublayers(part))]
        fixed = not any(use.how in ("looked up", "multiplied") for use in uses) and all(map(self._is_opened, holders))
        if fixed:
            self.reasons[id(kernel.variable)] = FIXED_TABLE
        return fixed

    def _is_opened(self, layer: keras.Layer) -> bool:
        """Whether the trace of the whole shows what is inside a layer."""
        if not isinstance(self._layer, keras.Model):
            return False
        try:
            return any(call.layer is layer and call.opened for call in calls(self._layer))
        except ValueError:
            return False

    def _uses(self, layer: keras.Layer, variable: keras.Variable) -> list[Use]:
        """Returns the uses of a layer's weight in the trace of the whole, or of the largest part that shows it."""
        models = [part for _, part in walk_layers(self._layer) if isinstance(part, keras.Model)]
        for part in (self._layer, *models, layer):
            holds = part is self._layer or part is layer or any(variable is weight for weight in part.weights)
            if holds and (uses := self._traced_uses(part).get(id(variable))):
                return uses
        return []

    def _traced_uses(self, part: keras.Layer) -> dict[int, list[Use]]:
        if id(part) not in self._traced:
            self._traced[id(part)] = trace_uses(part)
        return self._traced[id(part)]


def kernels_by_layer(model: keras.Model) -> dict[str, list[Kernel]]:
    """Returns the kernels of a built model by the path of the layer that holds them, for an LSTM's cell the LSTM's."""
    paths = {id(weight): path for path, _, weight in held_weights(model)}
    found: dict[str, list[Kernel]] = {}
    for kernel in kernels(model):
        if (path := paths.get(id(kernel.variable))) is not None:
            found.setdefault(path, []).append(kernel)
    return found


def _still_holds(base: type[keras.Layer], layer_class: type[keras.Layer]) -> bool:
    """Whether a description registered for a base class fits a class, which may have a `call` that Keras' has not."""
    runs = class_of_call(layer_class)
    ours = base.__module__.startswith("keras.") and not runs.__module__.startswith("keras.")
    return not ours or issubclass(base, runs)


def _described(layer: keras.Layer, base: type[keras.Layer], must: bool) -> list[Kernel]:
    """Returns the kernels of a layer by the function registered for its class or a base of it.

    Unless it `must` fit, it may fail: a subclass with an own `call` may have other weights.
    """
    try:
        described = _DESCRIPTIONS[base](layer)
    except Exception:
        if must:
            raise
        return []
    if not (isinstance(described, list | tuple) and all(isinstance(kernel, Kernel) for kernel in described)):
        got = [type(k).__name__ for k in described] if isinstance(described, list | tuple) else type(described).__name__
        raise ValueError(
            f"{type(layer).__name__}: the function registered for it returned {got}, "
            "expected a list of keras_initkit.structure.Kernel."
        )
    return list(described)
