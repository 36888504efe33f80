"""What the initializers of `keras.initializers` draw, as Keras documents it, and where they deviate by design."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from scipy import signal, stats

from keras_initkit.testing._predicates import Equals, Orthogonal
from keras_initkit.testing.declarations._declare import Declared, Shape, expect
from keras_initkit.testing.declarations._scalings_and_biases import centered, mode_fan
from keras_initkit.theory._fans import compute_fans

# tests/testing/test_keras.py asserts that these, and no others, are found.
RANDOM = {
    "precision": "Keras draws in the dtype asked for, and a half-precision draw is another, coarser one",
    "distinct_draws": "an unseeded instance of Keras resolves its seed once and draws the same values at each call",
    "clone_safety": "clones of an initializer with a SeedGenerator restart its stream and draw the same values",
}
NO_HALF_QR = "some backends have no QR decomposition in half precision"


def keras_fans(initializer: Any, shape: Shape) -> tuple[float, float]:
    """Keras' fans: with `input_axes` and `output_axes` (3.15) the other axes count for neither."""
    inputs, outputs = getattr(initializer, "input_axes", None), getattr(initializer, "output_axes", None)
    if inputs is not None and outputs is not None:
        return math.prod(shape[axis] for axis in inputs), math.prod(shape[axis] for axis in outputs)
    return compute_fans(shape)


def _declare_scaling(initializer_class: type, scale: float, mode: str, distribution: str) -> None:
    @expect(initializer_class, deviations=RANDOM)
    def declared(initializer: Any, shape: Shape) -> Declared:
        return centered(distribution, scale / mode_fan(mode, *keras_fans(initializer, shape)))


for _class, _scale, _mode in (("Glorot", 1.0, "fan_avg"), ("He", 2.0, "fan_in"), ("Lecun", 1.0, "fan_in")):
    for _suffix, _distribution in (("Normal", "truncated_normal"), ("Uniform", "uniform")):
        _declare_scaling(getattr(keras.initializers, _class + _suffix), _scale, _mode, _distribution)


@expect(keras.initializers.VarianceScaling, deviations=RANDOM)
def variance_scaling(initializer: Any, shape: Shape) -> Declared:
    """Variance `scale / fan`."""
    fan = mode_fan(initializer.mode, *keras_fans(initializer, shape))
    return centered(initializer.distribution, initializer.scale / fan)


@expect(keras.initializers.RandomNormal, deviations=RANDOM)
def random_normal(initializer: Any, shape: Shape) -> Declared:
    """N(mean, stddev^2)."""
    return stats.norm(initializer.mean, initializer.stddev)


@expect(keras.initializers.RandomUniform, deviations=RANDOM)
def random_uniform(initializer: Any, shape: Shape) -> Declared:
    """U(minval, maxval)."""
    return stats.uniform(initializer.minval, initializer.maxval - initializer.minval)


@expect(keras.initializers.TruncatedNormal, deviations=RANDOM)
def truncated_normal(initializer: Any, shape: Shape) -> Declared:
    """N(mean, stddev^2) cut at two standard deviations: its own is 0.88 of `stddev`."""
    return stats.truncnorm(-2, 2, initializer.mean, initializer.stddev)


@expect(
    keras.initializers.Orthogonal,
    shapes=((64, 32), (32, 64), (3, 3, 8, 16)),
    rejects=((), (4,)),
    deviations=RANDOM | {"dtypes": NO_HALF_QR, "finite": NO_HALF_QR},
)
def orthogonal(initializer: Any, shape: Shape) -> Declared:
    """Orthogonal rows or columns of norm `gain`."""
    return Orthogonal(initializer.gain)


@expect(keras.initializers.Constant)
def constant(initializer: Any, shape: Shape) -> Declared:
    """The value everywhere."""
    return Equals(initializer.value)


@expect(keras.initializers.Zeros)
def zeros(initializer: Any, shape: Shape) -> Declared:
    """0 everywhere."""
    return Equals(0.0)


@expect(keras.initializers.Ones)
def ones(initializer: Any, shape: Shape) -> Declared:
    """1 everywhere."""
    return Equals(1.0)


IDENTITY = {"configuration": "get_config() leaves out gain"}
if keras.initializers.serialize(keras.initializers.Identity())["class_name"] != "Identity":  # Keras 3.3
    IDENTITY |= {
        "keras_round_trip": "it is stored under a name that Keras does not find",
        "zero_sized": "a size of 0 is taken for a square matrix",
    }


@expect(keras.initializers.Identity, shapes=((64, 32), (32, 64)), rejects=((4,), (2, 2, 2)), deviations=IDENTITY)
def identity(initializer: Any, shape: Shape) -> Declared:
    """`gain` on the diagonal."""
    return Equals(initializer.gain * np.eye(shape[0], shape[1]))


# Absent from the oldest Keras that we support.
if hasattr(keras.initializers, "STFT"):

    @expect(
        keras.initializers.STFT,
        shapes=((64, 1, 33),),
        small=(8, 1, 5),
        zero_sized=(),
        deviations={"precision": "its waves are computed in the dtype asked for"},
    )
    def stft(initializer: Any, shape: Shape) -> Declared:
        """A windowed cosine or sine of each frequency."""
        length, _, bins = shape
        angles = -2 * np.pi * np.outer(np.arange(length), np.arange(bins)) / (2 * (bins - 1))
        wave = np.cos(angles) if initializer.side == "real" else np.sin(angles)
        if initializer.window is not None:
            window = initializer.window
            if isinstance(window, str):
                window = signal.get_window(window, length, initializer.periodic)
            norms = {None: 1.0, "density": np.sqrt(np.square(window).sum()), "spectrum": np.abs(window).sum()}
            wave = wave * np.asarray(window)[:, None] / norms[initializer.scaling]
        return lambda values: np.allclose(values[:, 0, :], wave, atol=1e-4)
