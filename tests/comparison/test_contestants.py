"""Which initializers can be compared, and what is said of the others before anything is trained."""

import re

import keras
import numpy as np
import pytest

from keras_initkit import initializers
from keras_initkit.comparison import compare
from keras_initkit.comparison._contestants import DEFAULT, check_contestants, find_contestants
from keras_initkit.initializers import catalogue

FIT = {
    "activation_scaling",
    "critical",
    "depth_scaling",
    "hadamard",
    "random_walk",
    "scaled_orthogonal",
    "siren",
    "sparse",
    "standard_uniform",
}
UNFIT = {
    "bilinear_upsampling": "rank 3 to 5",
    "chrono_bias": "it is for biases",
    "conv_orthogonal": "rank 3 to 5",
    "critical_bias": "it is for biases",
    "delta_orthogonal": "rank 3 to 5",
    "dirac": "rank 3 to 5",
    "gatewise_orthogonal": "does not divide into 4 gates",  # as ten classes do not
    "icnr": "rank 3 to 5",
    "prior_probability_bias": "it is for biases",
    "unit_forget_gate_bias": "it is for biases",
}


def checked(given, activation="relu"):
    """Contestants that can be compared."""
    contestants = find_contestants(given)
    check_contestants(contestants, activation)
    return contestants


def copy(given, activation):
    """What draws the kernel of one layer."""
    return find_contestants([given])[0].copy(activation)


def test_every_initializer_of_ours_is_one_or_the_other():
    ours = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", e.name).lower() for e in catalogue() if e.origin == "keras_initkit"}
    assert ours == FIT | set(UNFIT)


def test_those_that_fit_are_made():
    made = checked([*DEFAULT, *sorted(FIT)])
    assert [each.name for each in made] == list(dict.fromkeys([*DEFAULT, *sorted(FIT)]))
    assert all(isinstance(each.copy("relu"), keras.initializers.Initializer) for each in made)


@pytest.mark.parametrize("name", UNFIT)
def test_others_are_refused_by_name(name):
    message = rf"^initializers: got '{name}', which cannot draw the kernel of a Dense layer \(.*{UNFIT[name]}"
    with pytest.raises(ValueError, match=message) as caught:
        checked(["zeros", name])
    assert "\n" not in str(caught.value)


def test_by_registered_name_too():
    assert type(copy("keras_initkit>RandomWalk", "linear")) is initializers.RandomWalk
    with pytest.raises(ValueError, match="got 'keras_initkit>ICNR', which cannot draw"):
        checked(["keras_initkit>ICNR"])


def test_one_of_keras_own_that_does_not_fit():
    if not hasattr(keras.initializers, "STFT"):
        pytest.skip("this Keras has no STFT")
    with pytest.raises(ValueError, match="got 'stft', which cannot draw"):
        checked(["stft"])


@pytest.mark.parametrize("name", ["activation_scaling", "critical", "scaled_orthogonal"])
def test_the_activation_is_passed_on(name):
    assert copy(name, "tanh").activation == "tanh"


@pytest.mark.parametrize(
    ("name", "activation", "why"),
    [
        ("random_walk", "tanh", "activation: got 'tanh', expected one of 'relu', 'linear'"),
        ("critical", "gelu", "sigma_b: got 0, with which gelu has no stable critical point"),
        ("scaled_orthogonal", "softmax", "softmax does not act on each element"),
    ],
)
def test_an_activation_that_it_cannot_take_is_told_with_its_name(name, activation, why):
    with pytest.raises(
        ValueError, match=f"^initializers: {name} cannot be used with the activation '{activation}'.*{why}"
    ):
        copy(name, activation)


def test_an_unknown_name_has_near_ones():
    with pytest.raises(ValueError, match=r"^initializers: got 'radom_walk', expected .* Did you mean 'random_walk'"):
        find_contestants(["radom_walk"])


@pytest.mark.parametrize(("name", "activation"), [("icnr", "relu"), ("random_walk", "tanh")])
def test_compare_refuses_before_it_reads_data_or_trains(name, activation):
    with pytest.raises(ValueError, match=f"initializers: .*{name}"):
        compare([name], activation=activation, data="no such file.npz")


def uniform(shape, dtype=None):
    return keras.random.uniform(shape, dtype=dtype, seed=1)


def no_shapes(shape, dtype=None):
    raise RuntimeError("no shapes")


class Breaks(keras.initializers.RandomNormal):
    """Does not take its own configuration."""

    def __init__(self):
        super().__init__()


@pytest.mark.parametrize(
    ("given", "name", "drawn_by"),
    [
        (keras.initializers.HeNormal(), "HeNormal", "HeNormal"),
        (keras.initializers.HeNormal(seed=3), "HeNormal", "HeNormal"),
        (keras.initializers.HeNormal, "HeNormal", "HeNormal"),
        (
            keras.initializers.VarianceScaling(2.0, "fan_out"),
            "VarianceScaling(scale=2.0, mode=fan_out)",
            "VarianceScaling",
        ),
        (initializers.ActivationScaling("tanh"), "ActivationScaling(activation=tanh)", "ActivationScaling"),
        ({"class_name": "RandomNormal", "config": {"stddev": 0.5}}, "RandomNormal(stddev=0.5)", "RandomNormal"),
        (uniform, "uniform", "function"),
    ],
)
def test_every_form_is_taken_and_has_a_readable_name(given, name, drawn_by):
    (contestant,) = checked([given])
    assert contestant.name == name
    assert type(contestant.copy("relu")).__name__ == drawn_by


def test_names_are_unique_and_can_be_directories():
    given = [keras.initializers.HeNormal(), keras.initializers.HeNormal, "HeNormal", "HeNormal", lambda shape, dtype: 0]
    names = [each.name for each in find_contestants([*given, initializers.ActivationScaling(keras.activations.gelu)])]
    assert names == ["HeNormal", "HeNormal 2", "_lambda_", "ActivationScaling(activation=gelu)"]


def test_an_instance_keeps_its_activation_and_a_class_gets_the_layers():
    assert copy(initializers.ActivationScaling("tanh"), "relu").activation == "tanh"
    assert copy(initializers.ActivationScaling, "gelu").activation == "gelu"


def test_copies_of_a_seeded_instance_draw_differently():
    (contestant,) = find_contestants([keras.initializers.HeNormal(seed=3)])
    first, second = (np.asarray(contestant.copy("relu")((4, 5))) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    "given", ["he_normal", [], None, 3, keras.initializers.HeNormal(), {}, keras.initializers.Zeros]
)
def test_what_is_no_list_is_refused(given):
    with pytest.raises(ValueError, match=r"^initializers: got .*, expected a list of initializers such as"):
        find_contestants(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "got 3, expected an initializer"),
        (None, "got None, expected an initializer"),
        (keras.layers.Dense, "got .*Dense.*, expected an initializer class"),
        (initializers.Dirac(), "got 'Dirac', which cannot draw"),
        (initializers.CriticalBias(), "got 'CriticalBias', which cannot draw .*it is for biases"),
        (no_shapes, "got 'no_shapes', which cannot draw .*no shapes"),
        (Breaks(), r"Breaks.* cannot be copied from its get_config\(\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(given, message):
    with pytest.raises(ValueError, match=f"^initializers: {message}"):
        checked(["zeros", given])
