"""Axes, seeds and counts may be NumPy's or ranges; a configuration keeps them as plain data, or they are refused."""

import json

import keras
import numpy as np
import pytest

from keras_initkit import initializers as ik
from keras_initkit._checks import checked_axes, checked_count, checked_number, checked_shape


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (np.int64(0), 0),
        (np.array(1), 1),
        (np.array([0]), [0]),
        (range(2), [0, 1]),
        ((np.int8(0), -2), [0, -2]),
        ([0, 1], [0, 1]),
        ((), []),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", [ik.ActivationScaling, ik.StandardUniform, ik.Siren, ik.DepthScaling, ik.Critical])
def test_axes_are_kept_as_plain_data(kind, given, plain):
    for names in (("in_axes", "out_axes"), ("out_axes", "in_axes")):
        initializer = kind(**{names[0]: given, names[1]: np.int64(2)}, seed=1)
        config = json.loads(json.dumps(keras.initializers.serialize(initializer)))["config"]
        assert (config[names[0]], config[names[1]]) == (plain, 2)
        again = kind.from_config(config)
        values = [keras.ops.convert_to_numpy(each((3, 4, 5))) for each in (initializer, again)]
        np.testing.assert_array_equal(*values)


@pytest.mark.parametrize(
    ("given", "plain"), [(range(1, 3), [1, 2]), (np.array([2]), [2]), (np.int32(-1), -1), ([0, 2], [0, 2])]
)
def test_columns_of_an_orthogonal_kernel(given, plain):
    initializer = ik.ScaledOrthogonal(out_axes=given)
    assert initializer.get_config()["out_axes"] == plain
    assert initializer.clone().get_config() == initializer.get_config()


@pytest.mark.parametrize("axes", ["0", 0.5, True, [True], [0.0], {0: 1}, {0}, np.array([[0]]), np.array(True), [None]])
def test_what_is_no_axis_is_refused(axes):
    for make in (
        lambda: ik.ActivationScaling(in_axes=axes, out_axes=1),
        lambda: ik.Siren(in_axes=1, out_axes=axes),
        lambda: ik.ScaledOrthogonal(out_axes=axes),
    ):
        with pytest.raises(ValueError, match=r"(in|out)_axes: got .*expected an integer or a sequence of integers"):
            make()


@pytest.mark.parametrize("seed", [np.int64(3), np.array(3), np.uint8(3)], ids=repr)
@pytest.mark.parametrize("kind", [ik.ActivationScaling, ik.ScaledOrthogonal, ik.Sparse, ik.CriticalBias, ik.ChronoBias])
def test_seeds_are_kept_as_integers(kind, seed):
    kept = kind(seed=seed).get_config()["seed"]
    assert kept == 3
    assert type(kept) is int


@pytest.mark.parametrize(
    "seed", ["3", 3.0, True, np.array([1, 2]), range(2), np.random.default_rng(0)], ids=lambda x: type(x).__name__
)
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed: got .*expected an integer, a keras.random.SeedGenerator or None"):
        ik.StandardUniform(seed=seed)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: ik.DepthScaling(n_layers=n(3), width=n(4)),
        lambda n: ik.GatewiseOrthogonal(gates=n(3), gain=n(2)),
        lambda n: ik.Dirac(groups=n(3)),
        lambda n: ik.Sparse(nonzero=n(3), stddev=n(2)),
        lambda n: ik.ICNR(scale=n(3)),
        lambda n: ik.Siren(omega_0=n(3)),
        lambda n: ik.ChronoBias(max_steps=n(30)),
        lambda n: ik.UnitForgetGateBias(n(3)),
        lambda n: ik.PriorProbabilityBias(np.array([n(3), n(1)]), "softmax"),
        lambda n: ik.PriorProbabilityBias(np.array(0.5)),
        lambda n: ik.Critical("tanh", q=n(1)),
        lambda n: ik.CriticalBias("tanh", sigma_b=n(1)),
        lambda n: ik.DeltaOrthogonal(n(2)),
    ],
)
@pytest.mark.parametrize("number", [np.int64, np.float32])
def test_numbers_are_kept_as_plain_data(make, number):
    whole = make(np.int64) if number is np.float32 else make(int)
    try:
        config = make(number).get_config()
    except ValueError as error:  # a count
        assert number is np.float32 and "integer" in str(error)  # noqa: PT017, PT018
        return
    assert json.loads(json.dumps(config)) == config == whole.get_config()


@pytest.mark.parametrize("shape", ["35", None, 5, (None, 5), (2.0, 3), (3, -1), {3: 4}, {3, 4}, True, np.ones((2, 2))])
@pytest.mark.parametrize("kind", [ik.ActivationScaling, ik.Sparse, ik.CriticalBias, ik.ScaledOrthogonal])
def test_what_is_no_shape_is_refused(kind, shape):
    with pytest.raises(ValueError, match=r"shape: got (?s:.*)expected a sequence of integers of at least 0"):
        kind()(shape)


def test_shapes_of_other_types():
    for shape in ([4, 3], np.array([4, 3]), (np.int64(4), 3), keras.ops.zeros((4, 3)).shape):
        assert checked_shape(shape) == (4, 3)
        assert tuple(ik.StandardUniform()(shape).shape) == (4, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checked_count("n", 0), "n: got 0, expected a positive integer."),
        (lambda: checked_count("n", 1, least=2), "n: got 1, expected an integer of at least 2."),
        (lambda: checked_count("n", np.True_), f"n: got {np.True_!r}, expected a positive integer."),
        (lambda: checked_number("q", -1, least=0), "q: got -1, expected a finite number of at least 0."),
        (lambda: checked_number("p", 1, 0, 1), "p: got 1, expected a finite number above 0 and below 1."),
        (lambda: checked_number("x", "1"), "x: got '1', expected a finite number."),
        (lambda: checked_axes("axes", "1"), "axes: got '1', expected an integer or a sequence of integers."),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert str(error.value) == message


def test_strings_of_numpy_are_kept_as_plain_strings():
    initializer = ik.ActivationScaling(np.str_("relu"), np.str_("fan_out"), np.str_("uniform"), np.str_("backward"))
    strings = [value for value in initializer.get_config().values() if value is not None]
    assert strings == ["relu", "fan_out", "uniform", "backward"]
    assert {type(value) for value in strings} == {str}
