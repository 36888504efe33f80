"""Broken initializers, each with the check that is meant to catch it.

Every one differs from `Correct`, which passes all checks, by a mistake that somebody could make.
"""

from __future__ import annotations

import math
import random
from typing import Any, NamedTuple

import keras
import numpy as np
from scipy import stats

from keras_initkit.initializers._core import Cloneable, checked_seed, fresh_seed
from keras_initkit.testing import Orthogonal, expect

# Keras' torch backend lets 4e-6 of truncated normal values pass: some seeds draw one outside the bounds.
TORCH = ("truncation",) if keras.backend.backend() == "torch" else ()
TRUNCATED = 0.8796256610342398  # standard deviation of N(0, 1) cut at 2


def he_truncated(shape):
    return stats.truncnorm(-2, 2, scale=math.sqrt(2 / max(1, math.prod(shape[:-1]))) / TRUNCATED)


def he_uniform(shape):
    limit = math.sqrt(6 / max(1, math.prod(shape[:-1])))
    return stats.uniform(-limit, 2 * limit)


class Mutant(NamedTuple):
    initializer: Any
    expected: Any
    check: str  # meant to catch it
    also: frozenset[str]  # others that the same mistake may upset


MUTANTS: dict[str, Mutant] = {}


def mutant(check, *also, expected=he_truncated, registered=True, arguments=None):
    def register(cls):
        if registered:
            cls = keras.saving.register_keras_serializable("mutants")(cls)
        MUTANTS[cls.__name__] = Mutant(cls(**(arguments or {})), expected, check, frozenset(also))
        return cls

    return register


@keras.saving.register_keras_serializable("mutants")
class Correct(Cloneable, keras.initializers.Initializer):
    """He's truncated normal: variance scale / fan_in."""

    def __init__(self, scale=2.0, seed=None):
        self.scale, self.seed = scale, checked_seed(seed)

    def stddev(self, shape):
        return math.sqrt(self.scale / max(1, math.prod(shape[:-1])))

    def values(self, shape, dtype="float32", seed=None):
        if min(shape) < 0:
            raise ValueError(f"shape: got {shape}, expected a sequence of integers of at least 0.")
        options = {"dtype": dtype, "seed": fresh_seed(self.seed) if seed is None else seed}
        return keras.random.truncated_normal(shape, 0.0, self.stddev(shape) / TRUNCATED, **options)

    def __call__(self, shape, dtype=None):
        return keras.ops.cast(self.values(shape), dtype or keras.config.floatx())


# The scale of the values


@mutant("fan_mode", "stddev", "distribution", "truncation")
class FansSwapped(Correct):
    def stddev(self, shape):
        return math.sqrt(self.scale / max(1, math.prod(shape[:-2]) * shape[-1]))


@mutant("fan_mode", "stddev", "distribution", "truncation")
class FanAverage(Correct):
    def stddev(self, shape):
        return math.sqrt(self.scale / max(1, math.prod(shape[:-2]) * (shape[-1] + shape[-2]) / 2))


@mutant("fan_mode", "stddev", "distribution", "truncation", "mean")
class ReceptiveFieldForgotten(Correct):
    def stddev(self, shape):
        return math.sqrt(self.scale / max(1, shape[-2]))


@mutant("fan_mode", "stddev", "distribution", "truncation", "mean")
class FanOfFlattenedShape(Correct):
    def stddev(self, shape):
        return math.sqrt(self.scale / max(1, shape[0]))


@mutant("stddev", "fan_mode", "distribution")
class TruncationFactorForgotten(Correct):
    def stddev(self, shape):
        return super().stddev(shape) * TRUNCATED


@mutant("stddev", "fan_mode", "distribution", "precision")
class VarianceForStandardDeviation(Correct):
    def stddev(self, shape):
        return super().stddev(shape) ** 2


class CorrectUniform(Correct):
    def limit(self, shape):
        return math.sqrt(3) * self.stddev(shape)

    def values(self, shape, dtype="float32", seed=None):
        if min(shape) < 0:
            raise ValueError(f"shape: got {shape}, expected a sequence of integers of at least 0.")
        return keras.random.uniform(shape, -self.limit(shape), self.limit(shape), dtype, fresh_seed(self.seed))


@mutant("stddev", "fan_mode", "distribution", expected=he_uniform)
class UniformLimitWithoutSqrt3(CorrectUniform):
    def limit(self, shape):
        return self.stddev(shape)


@mutant("mean", "stddev", "fan_mode", "distribution", expected=he_uniform)
class UniformFromZero(CorrectUniform):
    def values(self, shape, dtype="float32", seed=None):
        return keras.ops.abs(super().values(shape, dtype, seed))


@mutant("stddev", "truncation", "distribution", "fan_mode")
class StandardDeviationTwoPercentHigh(Correct):
    def stddev(self, shape):
        return 1.02 * super().stddev(shape)


@mutant("stddev", "distribution", "fan_mode")
class StandardDeviationTwoPercentLow(Correct):
    def stddev(self, shape):
        return 0.98 * super().stddev(shape)


@mutant("mean", "truncation", "distribution")
class MeanShifted(Correct):
    def values(self, shape, dtype="float32", seed=None):
        return super().values(shape, dtype, seed) + 0.03 * self.stddev(shape)


# The shape of the distribution


@mutant("truncation", "distribution")
class NormalForTruncated(Correct):
    def values(self, shape, dtype="float32", seed=None):
        super().values(shape, dtype, seed)
        return keras.random.normal(shape, 0.0, self.stddev(shape), dtype, fresh_seed(self.seed))


@mutant("truncation", "distribution")
class TruncatedAtThreeSigma(Correct):
    def values(self, shape, dtype="float32", seed=None):
        super().values(shape, dtype, seed)
        uniform = keras.random.uniform(shape, -0.99730020, 0.99730020, dtype, fresh_seed(self.seed))
        # 0.98658: standard deviation of N(0, 1) cut at 3.
        return keras.ops.erfinv(uniform) * (math.sqrt(2) * self.stddev(shape) / 0.9865768)


@mutant("distribution")
class UniformForNormal(Correct):
    """Mean and standard deviation are right, and all values are within two of them."""

    def values(self, shape, dtype="float32", seed=None):
        super().values(shape, dtype, seed)
        limit = math.sqrt(3) * self.stddev(shape)
        return keras.random.uniform(shape, -limit, limit, dtype, fresh_seed(self.seed))


@mutant("distribution", "mean", "stddev", "fan_mode", "precision", "keras_round_trip")
class OneRowRepeated(Correct):
    def values(self, shape, dtype="float32", seed=None):
        row = keras.random.truncated_normal(
            shape[-1:], 0.0, self.stddev(shape) / TRUNCATED, dtype, fresh_seed(self.seed)
        )
        return keras.ops.broadcast_to(row, shape)


@mutant("precision")
class DrawInFloat16(Correct):
    def values(self, shape, dtype="float32", seed=None):
        return keras.ops.cast(super().values(shape, "float16", seed), "float32")


@mutant("precision")
class DrawInTheDtypeAskedFor(Correct):
    def __call__(self, shape, dtype=None):
        return self.values(shape, dtype or keras.config.floatx())


@mutant("finite", "mean", "stddev", "fan_mode", "distribution", "truncation", "json_round_trip", "keras_round_trip",
        "reproducibility", "clone_safety", "precision")  # fmt: skip
class NotANumberForSome(Correct):
    def values(self, shape, dtype="float32", seed=None):
        values = super().values(shape, dtype, seed)
        return keras.ops.where(keras.ops.abs(values) < 1e-4 * self.stddev(shape), float("nan"), values)


@mutant("finite", "precision")
class OverflowInFloat16(Correct):
    def __call__(self, shape, dtype=None):
        dtype = dtype or keras.config.floatx()
        return keras.ops.cast(self.values(shape) * 1e8, dtype) / keras.ops.cast(1e8, dtype)


# Shape and dtype


@mutant("shapes", "zero_sized", "keras_round_trip", "retracing")
class Transposed(Correct):
    def __call__(self, shape, dtype=None):
        return keras.ops.transpose(super().__call__(shape, dtype))


@mutant("shapes")
class NegativeSizeAccepted(Correct):
    def values(self, shape, dtype="float32", seed=None):
        return super().values([abs(size) for size in shape], dtype, seed)


@mutant("shapes", expected=None)
class WrongRankAccepted(Correct):
    """Takes a vector, though it says that it wants a matrix."""


expect(WrongRankAccepted, rejects=((4,),))(lambda initializer, shape: he_truncated(shape))


@mutant("zero_sized")
class DividesByFanZero(Correct):
    def stddev(self, shape):
        return math.sqrt(self.scale / math.prod(shape[:-1]))


@mutant("dtypes", "precision")
class AlwaysFloat32(Correct):
    def __call__(self, shape, dtype=None):
        return self.values(shape)


@mutant("dtypes")
class DefaultDtypeIgnored(Correct):
    def __call__(self, shape, dtype=None):
        return super().__call__(shape, dtype or "float16")


# Seeds


@mutant("reproducibility", "clone_safety", "json_round_trip", "global_random_state", "precision", *TORCH)
class SeedIgnored(Correct):
    def values(self, shape, dtype="float32", seed=None):
        return super().values(shape, dtype, random.randint(1, 10**9))


@mutant("distinct_draws", "reproducibility", "clone_safety", *TORCH)
class SeedFixed(Correct):
    def values(self, shape, dtype="float32", seed=None):
        return super().values(shape, dtype, 1337)


@mutant("distinct_draws", "attributes", "clone_safety")
class SameValuesAtEachUnseededCall(Correct):
    """As Keras' own: the seed is made once, in the constructor."""

    def __init__(self, scale=2.0, seed=None):
        super().__init__(scale, seed)
        self.own_seed = fresh_seed(self.seed)

    def values(self, shape, dtype="float32", seed=None):
        return super().values(shape, dtype, self.own_seed)


@mutant("clone_safety")
class ClonesDrawTheSame(Correct):
    def __init__(self, scale=2.0, seed=None):
        super().__init__(scale, seed)
        self.own_seed = keras.random.SeedGenerator(7) if self.seed is None else self.seed

    def values(self, shape, dtype="float32", seed=None):
        return super().values(shape, dtype, self.own_seed)


@mutant("clone_safety", "distinct_draws")
class GeneratorRestarted(Correct):
    """The seed generator of a configuration starts again, as Keras' does."""

    def __init__(self, scale=2.0, seed=None):
        super().__init__(scale, keras.saving.deserialize_keras_object(seed) if isinstance(seed, dict) else seed)


@mutant("configuration", "clone_safety", "attributes")
class SeedResolvedIntoConfig(Correct):
    def get_config(self):
        return {**super().get_config(), "seed": fresh_seed(self.seed) if self.seed is None else self.seed}


@mutant("configuration", "attributes", "distinct_draws")
class SeedResolvedAtFirstCall(Correct):
    def __call__(self, shape, dtype=None):
        self.seed = fresh_seed(self.seed)
        return super().__call__(shape, dtype)


# Configuration and files


@mutant("configuration")
class ConfigMissesAnArgument(Correct):
    def get_config(self):
        return {"seed": super().get_config()["seed"]}


@mutant("configuration")
class ConfigWithExtra(Correct):
    def __init__(self, scale=2.0, seed=None):
        super().__init__(scale, seed)

    def get_config(self):
        return {**super().get_config(), "distribution": "truncated_normal"}

    @classmethod
    def from_config(cls, config):
        return cls(config["scale"], config["seed"])


@mutant("json_round_trip", "keras_round_trip")
class ConfigNotJson(Correct):
    def __init__(self, scale=2.0, seed=None):
        super().__init__(scale, seed)

    def get_config(self):
        return {**super().get_config(), "scale": complex(self.scale)}

    @classmethod
    def from_config(cls, config):
        return cls(config["scale"].real, config["seed"])


@mutant("json_round_trip", "keras_round_trip", registered=False)
class NotRegistered(Correct):
    pass


@mutant("clone_safety", "json_round_trip", "keras_round_trip", "stddev", "fan_mode", "distribution", "truncation",
        expected=lambda shape: stats.truncnorm(-2, 2, scale=math.sqrt(3 / math.prod(shape[:-1])) / TRUNCATED),
        arguments={"scale": 3.0})  # fmt: skip
class FromConfigForgetsAnArgument(Correct):
    @classmethod
    def from_config(cls, config):
        return cls(seed=config["seed"])


@mutant("keras_round_trip", "json_round_trip", "clone_safety", arguments={"transform": lambda values: values})
class LambdaInConfig(Correct):
    """Loads only with safe_mode=False, and then runs code from the file."""

    def __init__(self, scale=2.0, transform=None, seed=None):
        super().__init__(scale, seed)
        if isinstance(transform, dict):
            transform = keras.saving.deserialize_keras_object(transform)
        self.transform = transform

    def get_config(self):
        return {"scale": self.scale, "transform": self.transform, "seed": super().get_config()["seed"]}


# What a call leaves behind


@mutant("global_random_state")
class NumpyGlobalStateConsumed(Correct):
    def __call__(self, shape, dtype=None):
        np.random.rand()  # noqa: NPY002
        return super().__call__(shape, dtype)


@mutant("global_random_state")
class PythonGlobalStateConsumed(Correct):
    def __call__(self, shape, dtype=None):
        random.random()
        return super().__call__(shape, dtype)


@mutant("attributes")
class CallsCounted(Correct):
    calls = 0

    def __call__(self, shape, dtype=None):
        self.calls += 1
        return super().__call__(shape, dtype)


@mutant("attributes")
class ShapeRemembered(Correct):
    def __init__(self, scale=2.0, seed=None):
        super().__init__(scale, seed)
        self.shapes = []

    def __call__(self, shape, dtype=None):
        self.shapes.append(tuple(shape))
        return super().__call__(shape, dtype)


@mutant("retracing", "keras_round_trip")
class LeavesTheGraph(Correct):
    def values(self, shape, dtype="float32", seed=None):
        return keras.ops.convert_to_tensor(keras.ops.convert_to_numpy(super().values(shape, dtype, seed)))


# Structure


class CorrectOrthogonal(Correct):
    blocks = 1

    def __init__(self, gain=1.5, seed=None):
        super().__init__(2.0, seed)
        self.gain = gain

    def block(self, rows, columns, seed):
        size = (max(rows, columns), min(rows, columns))
        q, r = keras.ops.qr(keras.random.normal(size, seed=seed))
        q = self.fix_signs(q, r)
        return q if rows >= columns else keras.ops.transpose(q)

    def fix_signs(self, q, r):
        return q * keras.ops.sign(keras.ops.diagonal(r))

    def values(self, shape, dtype="float32", seed=None):
        if min(shape) < 0 or len(shape) < 2:
            raise ValueError(f"shape: got {shape}, expected two sizes of 0 or more, or more of them.")
        if 0 in shape:
            return keras.ops.zeros(shape)
        seed = fresh_seed(self.seed)
        rows, columns = math.prod(shape[:-1]), shape[-1] // self.blocks
        seeds = [seed + number if isinstance(seed, int) else seed for number in range(self.blocks)]
        blocks = [self.block(rows, columns, each) for each in seeds]
        return keras.ops.reshape(self.gain * keras.ops.concatenate(blocks, axis=1), shape)


def orthogonal_gates(shape):
    return Orthogonal(1.5, blocks=4)


ORTHOGONAL = {"shapes": ((16, 64), (32, 32)), "small": (8, 32), "rejects": ((4,),)}


@keras.saving.register_keras_serializable("mutants")
class CorrectGates(CorrectOrthogonal):
    blocks = 4


@mutant("sign_symmetry", expected=None)
class OrthogonalWithoutSignFix(CorrectGates):
    def fix_signs(self, q, r):
        return q


@mutant("structure", expected=None)
class GateBlocksMixed(CorrectGates):
    """One orthogonal matrix for all gates."""

    blocks = 1


@mutant("structure", expected=None)
class GainForgotten(CorrectGates):
    def values(self, shape, dtype="float32", seed=None):
        return super().values(shape, dtype, seed) / self.gain


@mutant("sign_symmetry", expected=None)
class IdentityGates(CorrectGates):
    """Orthogonal, but no random matrix: columns of the identity, permuted."""

    def block(self, rows, columns, seed):
        order = keras.random.shuffle(keras.ops.arange(rows), seed=seed)
        return keras.ops.take(keras.ops.eye(rows), order, axis=0)[:, :columns]


for _class in (CorrectGates, OrthogonalWithoutSignFix, GateBlocksMixed, GainForgotten, IdentityGates):
    expect(_class, **ORTHOGONAL)(lambda initializer, shape: orthogonal_gates(shape))
