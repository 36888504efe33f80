"""What our orthogonal, structured and upsampling kernels are, by definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import linalg, signal, stats

from keras_initkit import initializers
from keras_initkit.testing import _predicates, _significance
from keras_initkit.testing._subject import Subject
from keras_initkit.testing.declarations._declare import TABLE, Declared, Shape, expect
from keras_initkit.testing.declarations._scalings_and_biases import with_axes
from keras_initkit.theory._gains import gain

# In one, two and three dimensions, with more outputs than inputs and with fewer.
CONVOLUTIONS = ((3, 3, 8, 16), (2, 8, 6), (3, 2, 2, 4, 4))
CONVOLUTION_REJECTS = ((), (4,), (4, 4), (1, 1, 1, 1, 2, 2))


def center(shape: Shape) -> tuple[int, ...]:
    """The tap that `padding="same"` puts on the pixel itself."""
    return tuple((size - 1) // 2 for size in shape[:-2])


@expect(
    initializers.ScaledOrthogonal,
    shapes=((64, 32), (32, 64), (3, 3, 8, 16)),
    rejects=((), (4,)),
    fit=with_axes,
)
def scaled_orthogonal(initializer: Any, shape: Shape) -> Declared:
    """Orthogonal rows or columns of the gain's norm."""
    axes = initializer.out_axes
    factor = gain(initializer.activation, initializer.direction)
    return _predicates.Orthogonal(factor, out_axes=(axes,) if isinstance(axes, int) else tuple(axes))


@expect(
    initializers.GatewiseOrthogonal,
    shapes=((32, 20), (3, 3, 2, 20)),
    small=(4, 4),
    rejects=((), (4,)),
    fit=lambda initializer, shape: (*shape[:-1], initializer.gates * shape[-1]),
)
def gatewise_orthogonal(initializer: Any, shape: Shape) -> Declared:
    """As many orthogonal blocks as gates."""
    return _predicates.DifferentBlocks(initializer.gain, blocks=initializer.gates)


@expect(initializers.DeltaOrthogonal, shapes=CONVOLUTIONS, small=(3, 4, 6), rejects=CONVOLUTION_REJECTS)
def delta_orthogonal(initializer: Any, shape: Shape) -> Declared:
    """An orthogonal matrix at the center."""
    return _predicates.DeltaOrthogonal(initializer.gain)


@expect(initializers.ConvOrthogonal, shapes=CONVOLUTIONS, small=(3, 4, 6), rejects=CONVOLUTION_REJECTS)
def conv_orthogonal(initializer: Any, shape: Shape) -> Declared:
    """A convolution that keeps norms."""
    return _predicates.ConvOrthogonal(initializer.gain)


@expect(
    initializers.Dirac,
    shapes=CONVOLUTIONS,
    small=(3, 4, 6),
    rejects=CONVOLUTION_REJECTS,
    fit=lambda initializer, shape: (*shape[:-1], initializer.groups * shape[-1]),
)
def dirac(initializer: Any, shape: Shape) -> Declared:
    """Output o of a group is its input o."""
    kernel, (*_, inputs, outputs) = np.zeros(shape), shape
    for output in range(outputs):
        index = output % (outputs // initializer.groups)
        if index < inputs:
            kernel[(*center(shape), index, output)] = 1
    return _predicates.Equals(kernel)


@expect(
    initializers.Hadamard,
    shapes=((64, 32), (32, 64), (5, 100), (3, 3, 8, 16), (3, 8, 1), (2, 2, 2, 3, 7)),
    rejects=((), (4,)),
)
def hadamard(initializer: Any, shape: Shape) -> Declared:
    """A part of the identity, or of the orthonormal Hadamard matrix where it widens; at the center."""
    kernel, (*_, inputs, outputs) = np.zeros(shape), shape
    size = 2 ** math.ceil(math.log2(outputs))
    matrix = np.eye(inputs) if inputs >= outputs else linalg.hadamard(size) / math.sqrt(size)
    kernel[center(shape)] = matrix[:inputs, :outputs]
    return _predicates.Equals(kernel)


@expect(initializers.Sparse, shapes=((100, 10_000), (3, 4, 5, 10_000)), small=(30, 4), rejects=((), (4,)))
def sparse(initializer: Any, shape: Shape) -> Declared:
    """As many N(0, stddev^2) in every unit, at places drawn uniformly, zeros elsewhere."""
    inputs, units = math.prod(shape[:-1]), shape[-1]
    count = min(15 if initializer.nonzero is None else initializer.nonzero, inputs)
    if initializer.sparsity is not None:
        count = inputs - math.ceil(initializer.sparsity * inputs)

    def accepts(values: np.ndarray) -> None:
        values = values.reshape(inputs, units)
        chosen = values != 0
        # A backend's normal draw is 0 with a chance of some 1e-7: more than three among 2e5 have one of 1e-8.
        if chosen.sum(axis=0).max() > count or chosen.sum() < count * units - 3:
            raise AssertionError(
                f"got {chosen.sum(axis=0).min()} to {chosen.sum(axis=0).max()} inputs a unit, expected {count}"
            )
        _predicates.assert_drawn(values[chosen], stats.norm(scale=initializer.stddev))
        share = count / inputs
        if count == inputs or units * count < 10_000:
            return
        # How often each input is chosen is binomial; that the sum is fixed takes one degree of freedom.
        surprise = np.square(chosen.sum(axis=1) - units * share) / (units * share * (1 - share))
        p_value = stats.chi2(inputs - 1).sf(surprise.sum() * (inputs - 1) / inputs)
        if not p_value >= _significance.LEVEL_IN_PREDICATE:
            times = chosen.sum(axis=1)
            raise AssertionError(
                f"got inputs chosen {times.min()} to {times.max()} times, expected about {units * share:g} each"
            )

    accepts.is_fixed = count == 0  # type: ignore[attr-defined]  # what `Subject` asks a predicate
    return accepts


def _icnr_reseed(initializer: Any, seed: Any) -> Any:
    """A copy whose inner initializer has the seed, if it takes one."""
    inner = initializers.get(initializer.initializer)
    config = dict(inner.get_config())
    if "seed" in config:
        inner = type(inner).from_config({**config, "seed": seed})
    return initializers.ICNR(initializer.scale, inner)


@expect(
    initializers.ICNR,
    shapes=((3, 3, 64, 256), (5, 64, 512)),
    small=(3, 4, 6),
    rejects=CONVOLUTION_REJECTS,
    deviations={"clone_safety": "its kernel is drawn by another; clones of Keras' with a SeedGenerator draw the same"},
    fit=lambda initializer, shape: (*shape[:-1], initializer.scale ** (len(shape) - 2) * shape[-1]),
    reseed=_icnr_reseed,
)
def icnr(initializer: Any, shape: Shape) -> Declared:
    """One kernel of the inner initializer, copied for every pixel that one becomes."""
    *others, outputs = shape
    copies = initializer.scale ** (len(shape) - 2)
    kernel_shape = (*others, outputs // copies)
    inner = initializers.get(initializer.initializer)
    known = type(inner) in TABLE  # else only its copies can be compared
    return _predicates.Copies(copies, Subject(inner).declared(kernel_shape) if known else None)


@expect(
    initializers.BilinearUpsampling,
    shapes=((4, 3, 3), (4, 5, 8, 8), (3, 2, 6, 2, 2)),
    small=(4, 3, 3),
    rejects=(*CONVOLUTION_REJECTS, (4, 4, 2, 3)),
    zero_sized=((4, 4, 0, 0),),
)
def bilinear_upsampling(initializer: Any, shape: Shape) -> Declared:
    """A product of triangles, for each channel by itself."""
    kernel = np.eye(shape[-1])
    for size in reversed(shape[:-2]):
        kernel = signal.windows.triang(size).reshape(-1, *[1] * kernel.ndim) * kernel
    return _predicates.Equals(kernel)
