"""Seeds, configuration, and one draw of a given variance: shared by every initializer here."""

from __future__ import annotations

import copy
import inspect
import math
import random
import warnings
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import keras

from keras_initkit._checks import as_integer, checked_axes, checked_option, checked_shape
from keras_initkit.theory._activations import Activation
from keras_initkit.theory._fans import Axes, Fans, compute_fans

PACKAGE = "keras_initkit"
Mode = Literal["fan_in", "fan_out", "fan_avg"]
Distribution = Literal["truncated_normal", "untruncated_normal", "uniform"]
# Standard deviation of a standard normal variable truncated at two standard deviations.
TRUNCATED_STDDEV = 0.87962566103423978

Seed: TypeAlias = int | keras.random.SeedGenerator | None
# Seed generators by the name and seed of their configuration (see `checked_seed`). Not weakly: what is drawn
# must not depend on when Python collects a model that is out of use.
_STREAMS: dict[str, keras.random.SeedGenerator] = {}


def checked_seed(seed: Any) -> Seed:
    """Returns a seed as an initializer keeps it, deserialized if it comes from a configuration.

    A `SeedGenerator` is one stream of draws. Its configuration, by which Keras clones an initializer and copies a
    model, means the last generator of that name and seed that this process has seen: copies go on with
    the stream. A second generator at the stream's start would draw again what the first has drawn, as Keras' do.
    """
    if isinstance(seed, dict):
        config = seed.get("config") if seed.get("class_name") == "SeedGenerator" else None
        known = _STREAMS.get(_stream(config)) if isinstance(config, dict) else None
        seed = known or keras.saving.deserialize_keras_object(seed)
    if isinstance(seed, keras.random.SeedGenerator):
        _STREAMS[_stream(seed.get_config())] = seed
        return seed
    plain = as_integer(seed)
    if plain is None and seed is not None:
        raise ValueError(f"seed: got {seed!r}, expected an integer, a keras.random.SeedGenerator or None.")
    return plain


def _stream(config: dict[str, Any]) -> str:
    return f"{config.get('name')!r}, {config.get('seed')!r}"


def restored(activation: Activation | dict[str, Any]) -> Activation:
    """An activation as a constructor takes it, deserialized if it comes from a configuration."""
    if isinstance(activation, dict):
        return keras.saving.deserialize_keras_object(activation)
    return str(activation) if isinstance(activation, str) else activation  # NumPy's strings are strings


def constructor_config(initializer: keras.initializers.Initializer) -> dict[str, Any]:
    """Returns the constructor's arguments, which an initializer keeps under their own names, as plain data."""

    def plain(value: Any) -> Any:
        name = getattr(value, "__name__", "")
        if callable(value) and getattr(keras.activations, name, None) is value:
            return name
        if isinstance(value, tuple):
            value = list(value)  # as a file gives it back
        return keras.saving.serialize_keras_object(value)

    names = inspect.signature(type(initializer)).parameters
    return {name: plain(getattr(initializer, name)) for name in names}


class OwnConfig(dict):
    """A configuration that has just come from `get_config()`. Serialization copies it into a plain dict."""


class Cloneable:
    """Copies an initializer by its configuration, which is exactly the constructor's arguments.

    MultiHeadAttention calls `from_config(get_config())` for each of its kernels. Copies without a seed draw
    different values, and so do copies that share a `SeedGenerator`; with an integer seed they must repeat, since a
    copy with another seed would have another configuration. Then a warning names the remedy.
    """

    seed: Seed

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain data, under their own names."""
        return OwnConfig(constructor_config(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Returns the initializer with these constructor arguments."""
        seed = config.get("seed")
        if isinstance(config, OwnConfig) and isinstance(seed, int):
            warnings.warn(
                f"{cls.__name__}: got a clone with the integer seed {seed}, as MultiHeadAttention makes one for each "
                "kernel; clones with an integer seed draw equal values for equal shapes, such as query, key and value. "
                f"Pass seed=keras.random.SeedGenerator({seed}), which is reproducible too and gives clones different "
                f"values, or call keras_initkit.initialize(model, scheme, seed={seed}).",
                stacklevel=3,
            )
        return cls(**config)

    def clone(self) -> Any:
        """Returns a copy, without the warning about integer seeds."""
        return self.from_config(dict(self.get_config()))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # The attributes are never changed, and a SeedGenerator, which cannot be copied deeply, stays one stream.
        return copy.copy(self)


def fresh_seed(seed: Seed) -> int | keras.random.SeedGenerator:
    """Returns the seed of one draw. Without a seed, each draw gets another.

    Keras' own unseeded initializers draw the same values each time they are called, so two layers that share
    one start out equal. Like theirs, the fresh seed comes from Python's `random`, so that
    `keras.utils.set_random_seed` makes a whole model reproducible.
    """
    return random.randint(1, 10**9) if seed is None else seed


def wide(dtype: str) -> str:
    """Returns the dtype to compute in: float32 at least; in less a decomposition is slow, inexact or missing."""
    return dtype if dtype in ("float32", "float64") else "float32"


def draw(
    shape: Sequence[int], variance: float, distribution: Distribution, dtype: Any = None, seed: Seed = None
) -> keras.KerasTensor:
    """Returns a tensor with independent elements of mean 0 and the given variance, whatever the distribution.

    Drawn in float32 at least and then cast: a half-precision draw has too few values to have the right one.
    """
    dtype = keras.backend.standardize_dtype(dtype)
    options: dict[str, Any] = {"dtype": wide(dtype), "seed": fresh_seed(seed)}
    stddev = math.sqrt(variance)
    if distribution == "uniform":
        limit = math.sqrt(3) * stddev
        values = keras.random.uniform(shape, -limit, limit, **options)
    elif distribution == "truncated_normal":
        whole = stddev / TRUNCATED_STDDEV
        values = keras.random.truncated_normal(shape, 0.0, whole, **options)
        if keras.backend.backend() == "torch":
            # There Keras draws four normal values and takes one within the bounds, if any is: else, for 4e-6 of
            # the elements, one that lies outside.
            values = keras.ops.clip(values, -2 * whole, 2 * whole)
    else:
        values = keras.random.normal(shape, 0.0, stddev, **options)
    return keras.ops.cast(values, dtype)


class ScaledVariance(Cloneable, keras.initializers.VarianceScaling):
    """Core of the scaling family: independent elements of variance `scale / fan`.

    A subclass passes `scale`; `fan` is the kernel's fan-in, fan-out or their mean. It is a Keras
    `VarianceScaling` for one reason: `EinsumDense` (hence `MultiHeadAttention`) of Keras 3.15 passes the input and
    output axes of its kernel to those alone, by a clone whose configuration holds `input_axes` and `output_axes`.
    Here these are aliases of `in_axes` and `out_axes`.
    """

    def __init__(
        self,
        scale: float,
        mode: Mode,
        distribution: Distribution,
        in_axes: Axes | None,
        out_axes: Axes | None,
        seed: Any,
    ):
        self.scale = scale
        self.mode = checked_option("mode", mode, get_args(Mode))
        self.distribution = checked_option("distribution", distribution, get_args(Distribution))
        if (in_axes is None) != (out_axes is None):
            raise ValueError(
                f"in_axes, out_axes: got {in_axes!r} and {out_axes!r}, expected both or neither "
                "(neither reads a Dense or Conv kernel, whose last two axes are inputs and outputs)."
            )
        self.in_axes = None if in_axes is None else checked_axes("in_axes", in_axes)
        self.out_axes = None if out_axes is None else checked_axes("out_axes", out_axes)
        self.seed = checked_seed(seed)

    input_axes = property(lambda self: self.in_axes)
    output_axes = property(lambda self: self.out_axes)

    def fans(self, shape: Sequence[int]) -> Fans:
        """Returns the fans of a kernel of `shape` under this initializer's axes."""
        if self.in_axes is None or self.out_axes is None:
            return compute_fans(shape)
        return compute_fans(shape, self.in_axes, self.out_axes)

    def variance(self, fans: Fans) -> float:
        """Returns the variance of the elements of a kernel with these fans."""
        fan_in, fan_out = fans
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return self.scale / max(fan, 1.0)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> keras.KerasTensor:
        """Returns a kernel of `shape`, in `dtype` or Keras' default."""
        shape = checked_shape(shape)
        return draw(shape, self.variance(self.fans(shape)), self.distribution, dtype, self.seed)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ScaledVariance:
        """Returns the initializer with these constructor arguments, or those of Keras' `EinsumDense`."""
        if "input_axes" in config or "output_axes" in config:
            # A plain dict: EinsumDense makes this copy for its one kernel, so that no seed repeats.
            config = dict(config)
            for ours, einsum_dense in (("in_axes", "input_axes"), ("out_axes", "output_axes")):
                if einsum_dense in config:
                    config[ours] = config.pop(einsum_dense)
        return super().from_config(config)
