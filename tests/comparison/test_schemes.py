"""Which initializers can be compared, and what is said of the others before anything is trained."""

import keras
import pytest

from keras_initkit import initializers
from keras_initkit.comparison import compare
from keras_initkit.comparison._contestants import DEFAULT, known_names, scheme, schemes

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


def test_every_initializer_of_ours_is_one_or_the_other():
    assert set(known_names()) - set(vars(keras.initializers)) == FIT | set(UNFIT)


def test_those_that_fit_are_made():
    made = schemes([*DEFAULT, *sorted(FIT)], "relu")
    assert list(made) == list(dict.fromkeys([*DEFAULT, *sorted(FIT)]))
    assert all(isinstance(each, keras.initializers.Initializer) for each in made.values())


@pytest.mark.parametrize("name", UNFIT)
def test_others_are_refused_by_name(name):
    message = rf"^initializers: got '{name}', which cannot draw the kernel of a Dense layer \(.*{UNFIT[name]}"
    with pytest.raises(ValueError, match=message) as caught:
        schemes(["zeros", name], "relu")
    assert "\n" not in str(caught.value)


def test_by_registered_name_too():
    assert type(scheme("keras_initkit>RandomWalk", "linear")) is initializers.RandomWalk
    with pytest.raises(ValueError, match="got 'keras_initkit>ICNR', which cannot draw"):
        schemes(["keras_initkit>ICNR"], "relu")


def test_one_of_keras_own_that_does_not_fit():
    if not hasattr(keras.initializers, "STFT"):
        pytest.skip("this Keras has no STFT")
    with pytest.raises(ValueError, match="got 'stft', which cannot draw"):
        schemes(["stft"], "relu")


@pytest.mark.parametrize("name", ["activation_scaling", "critical", "scaled_orthogonal"])
def test_the_activation_is_passed_on(name):
    assert scheme(name, "tanh").activation == "tanh"


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
        ValueError, match=f"^initializers: {name} does not go with the activation '{activation}'.*{why}"
    ):
        scheme(name, activation)


def test_an_unknown_name_has_near_ones():
    with pytest.raises(ValueError, match=r"got 'radom_walk', which is neither .* Did you mean random_walk"):
        scheme("radom_walk", "relu")


@pytest.mark.parametrize(("name", "activation"), [("icnr", "relu"), ("random_walk", "tanh")])
def test_compare_refuses_before_it_reads_data_or_trains(name, activation):
    with pytest.raises(ValueError, match=f"initializers: .*{name}"):
        compare([name], activation=activation, data="no such file.npz")
