"""A kernel with the layers before and after it in its model."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.structure._following import Following
from keras_initkit.structure._kernel import Kernel, as_tuple
from keras_initkit.theory._gains import DIRECTIONS, gain


@dataclass(frozen=True, eq=False)
class KernelContext:
    """A kernel with the layers before and after it in its model.

    Args:
        path: String. Path of the layer that holds it (for an LSTM's cell, the path of the LSTM).
        kernel: `Kernel`.
        following: `Following`, the activation after it.
        normalized: Boolean. Whether its output is normalized before anything else reads it.
        in_branch: Boolean. Whether it is part of a residual branch, or of a layer that is one (attention).
    """

    path: str
    kernel: Kernel
    following: Following
    normalized: bool
    in_branch: bool

    @property
    def is_output(self) -> bool:
        """Whether nothing but an activation, a reshape and the like lies between the kernel and the model's output."""
        return self.following.where == "output"

    @property
    def initializer(self) -> Any:
        """The layer's `kernel_initializer` or its like, by the variable's name; `None` if it has none."""
        name = self.kernel.variable.name
        names = (name, name.removesuffix("_kernel"), "depthwise")  # a depthwise kernel is called just "kernel"
        found = (getattr(self.kernel.layer, f"{each}_initializer", None) for each in names)
        return next((initializer for initializer in found if initializer is not None), None)

    @property
    def columns(self) -> np.ndarray:
        """Array of the weights of each unit, of shape `(inputs and field, units)`, in float32 at least."""
        axes = as_tuple(self.kernel.out_axes)
        values = to_numpy(self.kernel.variable.value)
        values = values.astype(np.promote_types(values.dtype, "float32"), copy=False).reshape(self.kernel.shape)
        return np.moveaxis(values, axes, range(-len(axes), 0)).reshape(-1, self.units)

    @functools.cached_property
    def healthy_variances(self) -> list[float]:
        """Variances that LeCun's, Glorot's and He's schemes give it, the latter with the gain of what follows."""
        fans = self.kernel.fans
        gains = [1.0]
        if self.following.activation != "linear":
            for direction in DIRECTIONS:
                try:
                    gains.append(gain(self.following.activation, direction) ** 2)
                except ValueError:
                    continue
        fan_in, fan_out = max(fans.fan_in, 1.0), max(fans.fan_out, 1.0)
        return [g / fan for g in gains for fan in (fan_in, fan_out, (fan_in + fan_out) / 2)]

    @property
    def units(self) -> int:
        """Number of units that the kernel feeds."""
        return math.prod(self.kernel.shape[axis] for axis in as_tuple(self.kernel.out_axes))
