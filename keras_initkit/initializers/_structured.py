"""Structured kernels: identity, Hadamard, sparse, and those of sine networks."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_initkit._checks import checked_count, checked_number
from keras_initkit.initializers._base import CONVOLUTION, ShapedInitializer, at_center
from keras_initkit.initializers._core import PACKAGE, ScaledVariance, checked_seed, draw
from keras_initkit.theory._fans import Axes, Fans


@keras.saving.register_keras_serializable(PACKAGE)
class Dirac(ShapedInitializer):
    r"""Sets a convolution kernel to the identity at its center and zeros around it, which passes the input on.

    .. math::

        K_{\text{center}, i, o} = 1 \text{ if } o = i \text{, else } 0 \quad \text{(in each group)}

    With stride 1 and `padding="same"`, output channel i is input channel i, as far as there are both. The
    kernel of a `Dense` layer has `keras.initializers.Identity`.

    Args:
        groups: Integer. The layer's `groups`; each group passes on its own channels.

    Raises:
        ValueError: If groups is below 1; when called, if the rank of the shape is not 3, 4 or 5, or its number of
            outputs does not divide into groups.

    Example:

    >>> from keras_initkit.initializers import Dirac
    >>> image = keras.random.normal((1, 5, 5, 3), seed=0)
    >>> layer = keras.layers.Conv2D(3, 3, padding="same", kernel_initializer=Dirac())
    >>> float(keras.ops.max(keras.ops.abs(layer(image) - image)))
    0.0

    References:
        - Sergey Zagoruyko and Nikos Komodakis (2017), "DiracNets: Training very deep neural networks without
          skip-connections", as in `torch.nn.init.dirac_`, https://arxiv.org/abs/1706.00388
    """

    ranks = (3, 4, 5)
    meaning = CONVOLUTION

    def __init__(self, groups: int = 1):
        self.groups = checked_count("groups", groups)

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape[-1] % self.groups:
            raise ValueError(
                f"groups: got {self.groups} for a kernel of shape {shape}, "
                f"expected a divisor of its {shape[-1]} outputs."
            )

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        *field, inputs, outputs = shape
        identity = np.tile(np.eye(inputs, outputs // self.groups), self.groups)
        return at_center(keras.ops.convert_to_tensor(identity, dtype), field)


@keras.saving.register_keras_serializable(PACKAGE)
class Hadamard(ShapedInitializer):
    r"""Sets a kernel to zeros and ones, up to one factor, without random numbers (ZerO).

    .. math::

        W = I^* \text{ if } \text{inputs} \geq \text{outputs} \text{, else } 2^{-m/2} I^* H_m I^*,
        \quad m = \lceil \log_2 \text{outputs} \rceil

    $I^*$ is an identity cut to shape and $H_m$ the Hadamard matrix of size $2^m$, orthogonal with this factor: where
    a layer widens, zeros and ones alone would leave the new units equal forever. A convolution has $W$ at its
    center. Widening to a power of two keeps the signal's norm, since the rows of $2^{-m/2} H_m$ have norm 1 and are
    orthogonal; otherwise, on average over signals, $\text{outputs} / 2^m$ of its square.

    Raises:
        ValueError: When called, if the rank of the shape is not 2 to 5.

    Example:

    >>> from keras_initkit.initializers import Hadamard
    >>> keras.ops.convert_to_numpy(Hadamard()((2, 4)))
    array([[ 0.5,  0.5,  0.5,  0.5],
           [ 0.5, -0.5,  0.5, -0.5]], dtype=float32)

    References:
        - Jiawei Zhao et al. (2022), "ZerO initialization: Initializing neural networks with only zeros and ones",
          algorithms 1 and 2, https://arxiv.org/abs/2110.12661
    """

    ranks = range(2, 6)
    meaning = "a Dense or convolution kernel"

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        *field, inputs, outputs = shape
        matrix = np.eye(inputs, outputs)
        if inputs < outputs:
            from scipy.linalg import hadamard  # slow to import, and only this needs it

            order = math.ceil(math.log2(outputs))
            matrix = hadamard(2**order)[:inputs, :outputs] * 2 ** (-order / 2)
        return at_center(keras.ops.convert_to_tensor(matrix, dtype), field)


@keras.saving.register_keras_serializable(PACKAGE)
class Sparse(ShapedInitializer):
    r"""Connects each unit to a few inputs chosen at random, whatever the width.

    .. math::

        W_{i, j} \sim N(0, \text{stddev}^2) \text{ for a few inputs } i \text{ of unit } j \text{, else } 0

    Units stay as different from each other, and as far from saturation, in a wide layer as in a narrow one. A unit is
    an element of the last axis; its inputs are those of all other axes.

    Args:
        nonzero: Integer or None. Number of inputs of each unit, at most all of them. 15 unless `sparsity` is given.
        sparsity: Float or None. Fraction of each unit's inputs that is zero, in place of `nonzero`.
        stddev: Float. Standard deviation of the other weights. 1 is Martens' value; `nonzero**-0.5` keeps the
            variance of a signal.
        seed: As in `ActivationScaling`.

    Raises:
        ValueError: If nonzero is below 1, sparsity is outside (0, 1), both are given, or stddev is not positive; when
            called, if the rank of the shape is 0 or 1.

    Example:

    >>> from keras_initkit.initializers import Sparse
    >>> kernel = Sparse(nonzero=3, seed=0)((100, 4))
    >>> [int(count) for count in keras.ops.count_nonzero(kernel, axis=0)]
    [3, 3, 3, 3]

    References:
        - James Martens (2010), "Deep learning via Hessian-free optimization", with `sparsity` as in
          `torch.nn.init.sparse_`, https://www.cs.toronto.edu/~jmartens/docs/Deep_HessianFree.pdf
    """

    ranks = range(2, 17)
    meaning = "a kernel (..., inputs, units)"

    def __init__(
        self, nonzero: int | None = None, sparsity: float | None = None, stddev: float = 1.0, seed: Any = None
    ):
        if nonzero is not None and sparsity is not None:
            raise ValueError(f"nonzero, sparsity: got {nonzero!r} and {sparsity!r}, expected one of them.")
        self.nonzero = nonzero if nonzero is None else checked_count("nonzero", nonzero)
        self.sparsity = sparsity if sparsity is None else checked_number("sparsity", sparsity, 0, 1)
        self.stddev = checked_number("stddev", stddev, above=0)
        self.seed = checked_seed(seed)

    def _values(self, shape: tuple[int, ...], dtype: str) -> keras.KerasTensor:
        inputs, units = math.prod(shape[:-1]), shape[-1]
        count = min(self.nonzero or 15, inputs)
        if self.sparsity is not None:
            count = inputs - math.ceil(self.sparsity * inputs)
        # One draw for positions and values, since a second from the same integer seed would repeat the first:
        # the largest of a row's first numbers choose the inputs, its last numbers are their weights.
        numbers = draw((units, inputs + count), 1.0, "untruncated_normal", dtype, self.seed)
        chosen = keras.ops.top_k(numbers[:, :inputs], count)[1]
        rows = keras.ops.broadcast_to(keras.ops.arange(units, dtype="int32")[:, None], (units, count))
        where = keras.ops.stack([keras.ops.cast(chosen, "int32"), rows], axis=-1)
        values = keras.ops.reshape(numbers[:, inputs:] * self.stddev, (-1,))
        kernel = keras.ops.scatter(keras.ops.reshape(where, (-1, 2)), values, (inputs, units))
        return keras.ops.reshape(kernel, shape)


@keras.saving.register_keras_serializable(PACKAGE)
class Siren(ScaledVariance):
    r"""Draws the uniform kernel of a network with sine activations, $\sin(\omega_0 (x W + b))$.

    .. math::

        W \sim U(-c, c), \qquad c_\text{first} = 1 / n_{in}, \qquad c_\text{later} = \sqrt{6 / n_{in}} / \omega_0

    The first layer spreads its units over frequencies up to $\omega_0$. In the second the pre-activations, $\omega_0$
    included, are $N(0, 1)$; from there their variance goes to $v = 1 - \exp(-2 v) = 0.797$ and stays, at any depth.

    Args:
        first: Boolean. Whether the kernel belongs to the network's first layer.
        omega_0: Float. Factor that the layer multiplies its pre-activations by.
        in_axes, out_axes, seed: As in `ActivationScaling`.

    Raises:
        ValueError: If `first` is not a boolean or omega_0 is not positive.

    Example:

    >>> from keras_initkit.initializers import Siren
    >>> round(float(keras.ops.max(Siren(seed=0)((600, 100)))) * 30, 3)  # sqrt(6 / 600)
    0.1

    References:
        - Vincent Sitzmann et al. (2020), "Implicit neural representations with periodic activation functions", section
          3.2 and theorem 1.8, https://arxiv.org/abs/2006.09661
    """

    def __init__(
        self,
        first: bool = False,
        omega_0: float = 30.0,
        in_axes: Axes | None = None,
        out_axes: Axes | None = None,
        seed: Any = None,
    ):
        if not isinstance(first, bool):
            raise ValueError(f"first: got {first!r}, expected True or False.")
        self.first = first
        self.omega_0 = checked_number("omega_0", omega_0, above=0)
        super().__init__(2 / self.omega_0**2, "fan_in", "uniform", in_axes, out_axes, seed)

    def variance(self, fans: Fans) -> float:
        """Returns the variance of U(-c, c), a third of c^2."""
        return 1 / (3 * max(fans[0], 1.0) ** 2) if self.first else super().variance(fans)
