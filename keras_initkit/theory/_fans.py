"""Fan-in and fan-out of a kernel, from the roles of its axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from keras_initkit._checks import checked_axes, checked_shape


class Fans(NamedTuple):
    """Number of inputs that feed one output unit, and number of outputs that one input unit feeds."""

    fan_in: float
    fan_out: float


Axes = int | Sequence[int]


def compute_fans(shape: Sequence[int], in_axes: Axes = -2, out_axes: Axes = -1, batch_axes: Axes = ()) -> Fans:
    r"""Returns the fan-in and fan-out of a kernel of `shape`.

    Every axis that is named neither input, output nor batch belongs to the receptive field, whose size
    multiplies both fans $n_{in}$ and $n_{out}$:

    .. math::

        n_{in} = \prod \text{in} \cdot \prod \text{field}, \qquad n_{out} = \prod \text{out} \cdot \prod \text{field}

    Args:
        shape: Sequence of integers. The kernel's shape. A vector or a scalar, such as a bias, has no input and output
            axes; each of its elements counts for both, as in Keras.
        in_axes: Integer or sequence of integers. Axes that the layer sums over, besides the receptive field.
        out_axes: Integer or sequence of integers. Axes of the layer's output units.
        batch_axes: Integer or sequence of integers. Axes of independent kernels side by side (heads, groups, gates),
            which count in neither fan.

    Returns:
        A named tuple `Fans(fan_in, fan_out)` of floats.

    Raises:
        ValueError: If the shape is none, or an axis is out of range or has two roles.

    Example:

    >>> compute_fans((2048, 128))
    Fans(fan_in=2048.0, fan_out=128.0)
    >>> compute_fans((3, 3, 64, 32))
    Fans(fan_in=576.0, fan_out=288.0)
    >>> compute_fans((256, 8, 32), in_axes=0, out_axes=(1, 2))  # queries of 8 heads of 32
    Fans(fan_in=256.0, fan_out=256.0)

    References:
        - Xavier Glorot and Yoshua Bengio (2010), "Understanding the difficulty of training deep feedforward neural
          networks", for dense layers, https://proceedings.mlr.press/v9/glorot10a.html
        - Kaiming He et al. (2015), "Delving deep into rectifiers", section 2.2, for the receptive field,
          https://arxiv.org/abs/1502.01852
    """
    shape = checked_shape(shape)
    groups = {"in_axes": in_axes, "out_axes": out_axes, "batch_axes": batch_axes}
    axes_by_role = {role: checked_axes(role, axes) for role, axes in groups.items()}
    if len(shape) < 2 and (axes_by_role["in_axes"], axes_by_role["out_axes"]) == (-2, -1):
        axes_by_role |= {"in_axes": (), "out_axes": ()}
    roles: dict[int, str] = {}
    products = {}
    for role, axes in axes_by_role.items():
        products[role] = 1
        for axis in (axes,) if isinstance(axes, int) else axes:
            if not -len(shape) <= axis < len(shape):
                raise ValueError(
                    f"{role}: got axis {axis!r} for a kernel of shape {shape}, "
                    f"expected an axis from {-len(shape)} to {len(shape) - 1}."
                )
            axis %= len(shape)
            if axis in roles:
                raise ValueError(
                    f"{role}: axis {axis} of a kernel of shape {shape} is in {roles[axis]} already; "
                    "give each axis one role."
                )
            roles[axis] = role
            products[role] *= shape[axis]
    field = math.prod(size for axis, size in enumerate(shape) if axis not in roles)
    return Fans(float(products["in_axes"] * field), float(products["out_axes"] * field))
