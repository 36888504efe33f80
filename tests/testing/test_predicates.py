"""Each predicate of the kit accepts what is right, made with NumPy, and says what is wrong with the rest."""

import math

import numpy as np
import pytest
from scipy import stats

from keras_initkit import initializers
from keras_initkit.testing import _predicates, check_initializer
from keras_initkit.testing._subject import Subject


def rng():
    return np.random.default_rng(0)


def haar(rows, columns):
    return stats.ortho_group(max(rows, columns), seed=0).rvs()[:rows, :columns]


def wrong(predicate, values, message):
    with pytest.raises(AssertionError, match=message):
        predicate(values)


def test_equals_to_one_rounding():
    _predicates.Equals(1 / 3)(np.full(4, np.float32(1 / 3), "float64"))
    wrong(_predicates.Equals(1 / 3), np.full(4, 1 / 3 + 1e-6), r"got 0\.33333\d+ at \(0,\), .*; 4 of 4 values differ")
    wrong(_predicates.Equals(0.0), np.array([0, np.nan]), r"got nan at \(1,\)")


def test_orthogonal_with_columns_of_several_axes():
    matrix = haar(12, 12)
    _predicates.Orthogonal(out_axes=(1, 2))(matrix.reshape(12, 4, 3))
    _predicates.Orthogonal(out_axes=(0,))(matrix[:, :6].T.reshape(6, 4, 3))
    wrong(_predicates.Orthogonal(), matrix.reshape(12, 4, 3), "Gram matrix")


def test_equal_blocks_are_seen():
    q = haar(4, 4)
    _predicates.DifferentBlocks(blocks=2)(np.hstack([q, q.T]))
    wrong(_predicates.DifferentBlocks(blocks=2), np.hstack([q, q]), "got 1 different blocks, expected 2")


def test_delta_orthogonal_is_zero_beside_the_centre():
    kernel = np.zeros((3, 2, 4, 6))
    kernel[1, 0] = haar(4, 6) * 2
    _predicates.DeltaOrthogonal(2.0)(kernel)
    wrong(_predicates.DeltaOrthogonal(1.0), kernel, "Gram matrix")
    wrong(_predicates.DeltaOrthogonal(2.0), np.roll(kernel, 1, 0), "Gram matrix up to 4")
    kernel[0, 0, 0, 0] = 1e-3
    wrong(_predicates.DeltaOrthogonal(2.0), kernel, "got 1 values other than 0 beside the center")


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_conv_orthogonal_sees_every_frequency(shape):
    projection = np.diag([1.0] * (shape[1] // 2) + [0.0] * (shape[1] - shape[1] // 2))
    taps = haar(*shape) @ np.stack([projection, np.eye(shape[1]) - projection])
    if shape[0] > shape[1]:  # the factor acts on the channels that are kept
        _predicates.ConvOrthogonal()(taps)
    else:
        many = np.diag([1.0] * 3 + [0.0] * 3)
        _predicates.ConvOrthogonal()(haar(4, 6) @ np.stack([many, np.eye(6) - many]))
    # Orthogonal at frequency 0 and as a flattened matrix, yet no map that keeps norms.
    wrong(_predicates.ConvOrthogonal(), np.stack([haar(*shape) / 2] * 2), r"frequency \(1,\)")
    wrong(_predicates.ConvOrthogonal(), np.stack([haar(*shape), np.zeros(shape)]), "got 1 taps that are 0")


def test_copies():
    part = rng().normal(size=(3, 4000, 5))
    _predicates.Copies(2, stats.norm())(np.concatenate([part, part], -1))
    wrong(_predicates.Copies(2), np.concatenate([part, part[::-1]], -1), "got 1 of 1 copies unlike the first")
    wrong(_predicates.Copies(2, stats.norm(scale=1.1)), np.concatenate([part, part], -1), "their standard deviation")
    wrong(_predicates.Copies(1, stats.norm(0.1)), part, "their mean does not fit")
    wrong(_predicates.Copies(1, stats.uniform(-math.sqrt(3), 2 * math.sqrt(3))), part, "their Kolmogorov-Smirnov")
    assert _predicates.Copies(2, _predicates.Equals(0.0)).is_fixed


def declared(initializer, shape):
    return Subject(initializer).declared(shape)


def test_sparse_counts_values_and_places():
    shape = (100, 10_000)
    accepts = declared(initializers.Sparse(nonzero=4), shape)
    places = rng().permuted(np.tile(np.arange(100)[:, None] < 4, (1, 10_000)), axis=0)
    values = np.where(places, rng().normal(size=shape), 0.0)
    accepts(values)
    one_less = values.copy()
    one_less[places.argmax(axis=0)[:10], np.arange(10)] = 0
    wrong(accepts, one_less, "got 3 to 4 inputs a unit, expected 4")
    wrong(accepts, 1.05 * values, "standard deviation does not fit")
    wrong(accepts, np.where(np.arange(100)[:, None] < 4, rng().normal(size=shape), 0.0), "got inputs chosen .* about")


def test_chrono_bias_gates_and_their_law():
    accepts = declared(initializers.ChronoBias(50), (80_000,))
    forget, nothing = np.log(rng().uniform(1, 49, 20_000)), np.zeros(40_000)
    accepts(np.concatenate([-forget, forget, nothing]))
    wrong(accepts, np.concatenate([forget, -forget, nothing]), "got spans from")
    wrong(accepts, np.concatenate([forget, forget, nothing]), "got gates other than")
    log_uniform = rng().uniform(0, np.log(49), 20_000)
    wrong(accepts, np.concatenate([-log_uniform, log_uniform, nothing]), "does not fit the declared distribution")


@pytest.mark.parametrize(
    ("initializer", "small"),
    [
        (initializers.GatewiseOrthogonal(gates=5), (4, 20)),
        (initializers.ICNR(3, "zeros"), (3, 4, 18)),
        (initializers.PriorProbabilityBias([0.1, 0.2]), (2,)),
        (initializers.ActivationScaling(in_axes=0, out_axes=(1, 2)), (1, 6, 4)),
        (initializers.StandardUniform(in_axes=-3, out_axes=-1), (1, 6, 4)),
    ],
)
def test_shapes_are_fitted_to_the_instance(initializer, small):
    assert Subject(initializer).known.small == small
    check_initializer(initializer)


def test_biases_of_standard_deviation_0_are_not_random():
    assert not Subject(initializers.CriticalBias()).is_random
    assert Subject(initializers.CriticalBias("tanh", q=1.0)).is_random


def test_edge_of_chaos_by_its_equations():
    """tanh at q = 1: E[sech^4(z)] and E[tanh^2(z)] by trapezoids, not by the package's quadrature."""
    z = np.linspace(-12, 12, 200_001)
    density = stats.norm.pdf(z) * (z[1] - z[0])
    weights = 1 / np.sum((1 - np.tanh(z) ** 2) ** 2 * density)
    biases = 1 - weights * np.sum(np.tanh(z) ** 2 * density)
    kernel = declared(initializers.Critical("tanh", q=1.0), (100, 50))
    assert kernel.var() * 100 == pytest.approx(weights, rel=1e-6)
    assert declared(initializers.CriticalBias("tanh", q=1.0), (50,)).var() == pytest.approx(biases, rel=1e-5)
