"""Keras' own initializers under the kit: what they fail is a documented fact, no more and no less."""

import keras
import numpy as np
import pytest
from scipy import stats

from keras_initkit.initializers import ActivationScaling
from keras_initkit.testing import failed_checks, parametrize_with_checks
from keras_initkit.testing._subject import Subject, to_numpy
from keras_initkit.testing.declarations._declare import TABLE
from keras_initkit.testing.declarations._scalings_and_biases import centered

BACKEND = keras.backend.backend()
SCALING = ["GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "VarianceScaling"]
RANDOM = [*SCALING, "RandomNormal", "RandomUniform", "TruncatedNormal", "Orthogonal"]
FIXED = ["Constant", "Zeros", "Ones", "Identity", "STFT"]


def keras_initializer(name):
    if not hasattr(keras.initializers, name):
        pytest.skip(f"this Keras has no {name}")
    return getattr(keras.initializers, name)()


def test_every_public_initializer_of_keras_is_known():
    public = {
        value
        for value in vars(keras.initializers).values()
        if isinstance(value, type) and issubclass(value, keras.initializers.Initializer)
    } - {keras.initializers.Initializer}
    assert public <= set(TABLE)


@parametrize_with_checks([keras.initializers.HeNormal()])
def test_a_case_for_each_check_with_known_deviations_expected_to_fail(initializer, check):
    check(initializer)


# What fails, with no deviation declared: found on Keras 3.15.
DEVIATIONS = {
    **{name: {"precision", "distinct_draws", "clone_safety"} for name in RANDOM},
    "Orthogonal": {"precision", "distinct_draws", "clone_safety"} | {"dtypes", "finite"},
    "Identity": {"configuration"},
    "STFT": {"precision"},
}
if keras.initializers.serialize(keras.initializers.Identity())["class_name"] != "Identity":  # found on Keras 3.3
    DEVIATIONS["Identity"] |= {"keras_round_trip", "zero_sized"}


@pytest.mark.parametrize("name", [*RANDOM, *FIXED])
def test_exactly_these_deviations_are_found_and_all_of_them_are_declared(name):
    initializer = keras_initializer(name)
    found = set(failed_checks(initializer))
    if BACKEND == "torch" and name == "RandomNormal":
        found.add("precision")  # torch draws half-precision normal values in float32
    assert found == DEVIATIONS.get(name, set())
    assert found <= set(TABLE[type(initializer)].deviations)


@pytest.mark.parametrize(
    ("name", "shape", "stddev"),
    [
        ("HeNormal", (50, 20), (2 / 50) ** 0.5),
        ("GlorotUniform", (3, 3, 4, 5), (2 / (36 + 45)) ** 0.5),
        ("LecunUniform", (8,), (1 / 8) ** 0.5),
        ("TruncatedNormal", (3, 4), 0.05 * 0.8796256610342398),
        ("RandomUniform", (3, 4), 0.1 / 12**0.5),
    ],
)
def test_declared_standard_deviations_are_the_published_ones(name, shape, stddev):
    declared = Subject(keras_initializer(name)).declared(shape)
    assert declared.std() == pytest.approx(stddev, rel=1e-9)
    assert declared.mean() == 0


def test_keras_axes_count_no_receptive_field():
    initializer = keras.initializers.HeNormal()
    if not hasattr(initializer, "input_axes"):
        pytest.skip("this Keras has no input_axes")
    initializer = keras.initializers.HeNormal(input_axes=[0], output_axes=[1, 2])
    assert Subject(initializer).declared((32, 4, 8)).std() == pytest.approx((2 / 32) ** 0.5)


def test_truncated_draws_have_no_exception():
    # Keras' own on torch have 4.3e-6: some 18 here.
    kernel = to_numpy(ActivationScaling("linear", seed=0)((1, 2**22)))
    assert np.abs(kernel).max() <= 2 / 0.8796256610342398 * (1 + 1e-6)


@pytest.mark.parametrize("distribution", ["uniform", "truncated_normal", "untruncated_normal"])
def test_centered_distributions_have_the_variance_asked_for(distribution):
    x = np.linspace(-1, 1, 200_001) * 8
    density = centered(distribution, 0.49).pdf(x)
    assert np.sum(density * x**2) * (x[1] - x[0]) == pytest.approx(0.49, rel=1e-4)
    assert isinstance(centered(distribution, 0.49), type(stats.norm()))
