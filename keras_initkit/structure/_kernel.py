"""A kernel: role, axes, groups, gates, strides and fans."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import keras

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
            or `"unknown"` where neither a description nor the trace says what the layer does with it.
        shape: Tuple of integers. The variable's shape with packed axes separated: each axis has one role: the
            kernel (64, 4 * 32) of an LSTM has shape (64, 4, 32). The elements keep their order. Defaults to the
            variable's shape.
        strides: Tuple of integers. Strides of a convolution, one for each spatial axis.
        gates: Tuple of strings. Names of a recurrent layer's gates, in the order of their axis, which is then the
            only batch axis.
        tied: Boolean. Whether an embedding's table is also multiplied into a signal, transposed, as the kernel of an
            output; `output_use` is that kernel.
        factor: Float. Constant that the layer multiplies the kernel by, as an equalized learning rate does.
        layer: Keras layer. The layer that owns the kernel; `kernels` fills it in.

    Raises:
        ValueError: If `shape` and the variable have different sizes, an axis is out of range or has two roles,
            or the role is unknown.

    Example:

    >>> import keras_initkit
    >>> lstm = keras.layers.LSTMCell(32)
    >>> lstm.build((None, 64))
    >>> kernel = keras_initkit.structure.kernels(lstm)[0]
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
    tied: bool = False
    factor: float = 1.0
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
        all positions is exact, that of a single position is not. A kernel that the layer multiplies by a constant c
        has the fans of one without that does the same, $c^2$ of these.
        """
        counts = compute_fans(self.shape, self.in_axes, self.out_axes, self.batch_axes)
        fan_in, fan_out = (self.factor**2 * count for count in counts)
        steps = math.prod(self.strides)
        return Fans(fan_in / steps, fan_out) if self.role == "conv_transpose" else Fans(fan_in, fan_out / steps)

    @property
    def output_use(self) -> Kernel:
        """The kernel that a tied table is where it makes an output, which sums over the features for each row."""
        return replace(self, in_axes=self.out_axes, out_axes=self.batch_axes, batch_axes=(), role="dense", tied=False)


def as_tuple(axes: Axes) -> tuple[int, ...]:
    """Returns one axis or several as a tuple."""
    return (axes,) if isinstance(axes, int) else tuple(axes)
