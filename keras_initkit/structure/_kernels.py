"""The kernels of a layer: role, axes, groups, gates, strides and fans of each."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import keras

from keras_initkit.structure._layer_paths import held_weights
from keras_initkit.structure._sublayers import walk_layers
from keras_initkit.structure._weights import own_weights
from keras_initkit.theory._fans import Axes, Fans, compute_fans

Role = Literal["dense", "conv", "conv_transpose", "depthwise", "recurrent", "embedding", "unknown"]
ROLES = get_args(Role)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel and how its layer uses it.

    Args:
        variable: Keras variable.
        in_axes: Integer or tuple of integers. Axes of `shape` that the layer sums over, besides the receptive field.
        out_axes: Integer or tuple of integers. Axes of the layer's output units.
        batch_axes: Integer or tuple of integers. Axes of independent kernels side by side (depthwise channels, groups,
            gates, an embedding's rows). Axes that none of the three names are the receptive field.
        role: String. One of `"dense"`, `"conv"`, `"conv_transpose"`, `"depthwise"`, `"recurrent"`, `"embedding"`,
            or `"unknown"` for a layer without a registered description.
        shape: Tuple of integers. The variable's shape with packed axes separated: each axis has one role: the
            kernel (64, 4 * 32) of an LSTM has shape (64, 4, 32). The elements keep their order. Defaults to the
            variable's shape.
        strides: Tuple of integers. Strides of a convolution, one for each spatial axis.
        gates: Tuple of strings. Names of a recurrent layer's gates, in the order of their axis, which is then the
            only batch axis.
        layer: Keras layer. The layer that owns the kernel; `kernels` fills it in.

    Raises:
        ValueError: If `shape` and the variable have different sizes, an axis is out of range or has two roles,
            or the role is unknown.

    Example:

    >>> lstm = keras.layers.LSTMCell(32)
    >>> lstm.build((None, 64))
    >>> kernel = kernels(lstm)[0]
    >>> kernel.shape, kernel.gates, kernel.fans
    ((64, 4, 32), ('input', 'forget', 'cell', 'output'), Fans(fan_in=64.0, fan_out=32.0))
    """

    variable: keras.Variable
    in_axes: Axes = -2
    out_axes: Axes = -1
    batch_axes: Axes = ()
    role: Role = "dense"
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    gates: tuple[str, ...] = ()
    layer: keras.Layer | None = None

    def __post_init__(self) -> None:
        own_shape = tuple(self.variable.shape)
        shape = tuple(self.shape) or own_shape
        if math.prod(shape) != math.prod(own_shape):
            raise ValueError(f"shape: got {shape} for {self.variable.path}, expected the size of {own_shape}.")
        if self.role not in ROLES:
            raise ValueError(f"role: got {self.role!r}, expected one of {', '.join(map(repr, ROLES))}.")
        axes = {name: as_tuple(getattr(self, name)) for name in ("in_axes", "out_axes", "batch_axes")}
        compute_fans(shape, **axes)  # raises if they do not fit
        for name, value in axes.items():
            object.__setattr__(self, name, tuple(axis % len(shape) for axis in value))
        object.__setattr__(self, "shape", shape)

    @property
    def fans(self) -> Fans:
        r"""Fans of one gate, group or depthwise channel, averaged over positions away from borders.

        A convolution of stride $s$ reads each input in 1 of $s$ windows along an axis, and a transposed one
        reaches each output with 1 of $s$ kernel elements:

        .. math::

            n_{in} = \text{in} \cdot \text{field}, \qquad n_{out} = \text{out} \cdot \text{field} / \prod s

        in a convolution, and in a transposed one

        .. math::

            n_{in} = \text{in} \cdot \text{field} / \prod s, \qquad n_{out} = \text{out} \cdot \text{field}

        Where the kernel's size is no multiple of the stride, positions differ (a kernel of 3 with stride 2
        reaches outputs with 1 or 2 elements in turn) and the fans are means, 1.5 there: the mean variance over
        all positions is exact, that of a single position is not.
        """
        fan_in, fan_out = compute_fans(self.shape, self.in_axes, self.out_axes, self.batch_axes)
        steps = math.prod(self.strides)
        return Fans(fan_in / steps, fan_out) if self.role == "conv_transpose" else Fans(fan_in, fan_out / steps)


def as_tuple(axes: Axes) -> tuple[int, ...]:
    """Returns one axis or several as a tuple."""
    return (axes,) if isinstance(axes, int) else tuple(axes)


Describe = Callable[[keras.Layer], Iterable[Kernel]]

_DESCRIPTIONS: dict[type[keras.Layer], Describe] = {}
_WARNED: weakref.WeakSet[type[keras.Layer]] = weakref.WeakSet()


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


def description(layer_class: type[keras.Layer]) -> Describe | None:
    """Returns the function registered for a layer class or its nearest base; `None` if there is none."""
    return next((_DESCRIPTIONS[base] for base in layer_class.__mro__ if base in _DESCRIPTIONS), None)


def kernels(layer: keras.Layer) -> list[Kernel]:
    """Returns every kernel of a built layer or model, sublayers included, in the order in which Keras tracks them.

    A kernel that several layers share, or a layer that is used several times, is listed once. Layers quantized to
    integers are skipped, for their packed and scaled values cannot be re-initialized.

    Args:
        layer: A built layer or model.

    Raises:
        ValueError: If the layer is not built, or a registered function does not return a list of `Kernel`.

    Warns:
        UserWarning: Once for each unregistered class whose layers own weights of rank 2 or more. These are read by
            default with inputs on the last axis but one and outputs on the last.
    """
    if not isinstance(layer, keras.Layer):
        raise ValueError(f"layer: got {layer!r}, expected a Keras layer or model.")
    if not layer.built:
        raise ValueError(
            f"layer: got {layer.name}, which is not built, expected a built layer. Call it on data, or build() it."
        )
    found: dict[int, Kernel] = {}
    for _, part in walk_layers(layer):
        for kernel in _own_kernels(part, found):
            found.setdefault(id(kernel.variable), replace(kernel, layer=part))
    return list(found.values())


def kernels_by_layer(model: keras.Model) -> dict[str, list[Kernel]]:
    """Returns the kernels of a built model by the path of the layer that holds them, for an LSTM's cell the LSTM's."""
    paths = {id(weight): path for path, _, weight in held_weights(model)}
    found: dict[str, list[Kernel]] = {}
    for kernel in kernels(model):
        if (path := paths.get(id(kernel.variable))) is not None:
            found.setdefault(path, []).append(kernel)
    return found


def _own_kernels(layer: keras.Layer, found: Container[int]) -> list[Kernel]:
    """Returns the kernels of a layer without those of its sublayers."""
    if getattr(layer, "quantization_mode", None) not in (None, "float8"):
        return []
    describe = description(type(layer))
    if describe is None:
        return _read_by_default(layer, found)
    if not layer.built:  # an unused part of a model
        return []
    described = describe(layer)
    if not (isinstance(described, list | tuple) and all(isinstance(kernel, Kernel) for kernel in described)):
        got = [type(k).__name__ for k in described] if isinstance(described, list | tuple) else type(described).__name__
        raise ValueError(
            f"{type(layer).__name__}: the function registered for it returned {got}, "
            "expected a list of keras_initkit.structure.Kernel."
        )
    return list(described)


def _read_by_default(layer: keras.Layer, found: Container[int]) -> list[Kernel]:
    """Returns the weights of rank 2 or more of a layer that has no description."""
    variables = [
        variable
        for variable in own_weights(layer, into_loops=True)
        if id(variable) not in found
        and len(variable.shape) >= 2
        and keras.backend.is_float_dtype(variable.dtype)
        and (variable.trainable or not layer.trainable)  # state is no kernel; in a frozen layer they look alike
    ]
    layer_class = type(layer)
    if variables and layer_class not in _WARNED:
        _WARNED.add(layer_class)
        name = layer_class.__name__
        weights = ", ".join(f"{variable.path} {tuple(variable.shape)}" for variable in variables)
        warnings.warn(
            f"{name}: keras_initkit does not know how this layer uses {weights}. It assumes inputs on the last axis "
            "but one, outputs on the last and a receptive field on the rest, as in a Dense or Conv layer. "
            f"Describe its kernels with keras_initkit.structure.register_kernels({name}, function).",
            stacklevel=2,
        )
    return [Kernel(variable, role="unknown") for variable in variables]
