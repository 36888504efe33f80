"""Zero, pre-training and the Dense(128) models."""

import math

import pytest

from keras_initkit.examples import reproduce


@pytest.mark.slow
def test_units_that_start_equal_stay_equal_and_logistic_regression_does_not_mind(tmp_path):
    numbers = reproduce("zero", str(tmp_path), epochs=3)
    for units in numbers["units"]:
        assert units["counts"] == [32 if units["start"] == "Glorot" else 1] * 4
    accuracy = {(row["model"], row["start"]): row["test accuracy"] for row in numbers["runs"]}
    loss = {(row["model"], row["start"]): row["training loss"] for row in numbers["runs"]}
    for activation in ("tanh", "relu"):
        assert loss[f"32 {activation}", "zeros"] == pytest.approx(math.log(10), rel=0.01)
        # One unit orders the classes on a line; 360 test images.
        assert accuracy[f"32 {activation}", "constant 0.1"] < 0.5 < accuracy[f"32 {activation}", "Glorot"]
    zeros, glorot = (accuracy["logistic regression", start] for start in ("zeros", "Glorot"))
    assert zeros > 0.85
    assert abs(zeros - glorot) < 4 * math.sqrt(2 * 0.1 * 0.9 / 360)


@pytest.mark.slow
def test_pre_training_starts_a_deep_sigmoid_network_that_random_weights_do_not(tmp_path):
    runs = {
        row["start"]: row
        for row in reproduce("pretraining", str(tmp_path), seed=1, epochs=5, pretraining_epochs=8)["runs"]
    }
    for start in ("sigmoid, small", "sigmoid, He"):
        assert runs[start]["training loss"] > 0.98 * math.log(10)
    # Four layers of 100 units: sd sqrt(100) times the sigmoid's slope where its input is N(0, 100 sd^2 / 4), 0.243; a
    # layer's factor has a logarithm of deviation 0.07.
    expected = (0.05 * 10 * 0.243) ** 4
    small = runs["sigmoid, small"]["gradient 1 / 5"]
    assert abs(math.log(small / expected)) < 4 * 0.07 * math.sqrt(4)
    assert runs["pre-trained"]["gradient 1 / 5"] > 10 * runs["sigmoid, He"]["gradient 1 / 5"]
    assert runs["pre-trained"]["rank"] > 4 > 1.5 > runs["sigmoid, small"]["rank"]
    for start in ("pre-trained", "relu, He"):
        assert runs[start]["test accuracy"] > 0.5


@pytest.mark.slow
def test_dense_128_one_layer_forgives_what_four_do_not(tmp_path):
    rows = reproduce("dense_128", str(tmp_path), epochs=1, depth=4, activations="relu")["initializers"]
    of = {(row["depth"], row["activation"], row["initializer"]): row for row in rows}
    assert len(of) == 18
    for (depth, _, initializer), row in of.items():
        learns = "1" in row["criteria"].split()
        if depth == 1:
            assert learns == (initializer != "zeros")
        elif initializer == "zeros":
            assert not learns
    # Three layers at relu: He keeps the mean square, LeCun and Glorot halve it, N(0, 0.05) leaves 0.16 of it. A layer
    # of 128 units adds a relative error of sqrt(5 / 128) to it; and the variance is not all of the mean square.
    for scheme, expected in (("he", 1), ("lecun", 2**3), ("glorot", 2**3)):
        for draw in ("normal", "uniform"):
            assert expected / 3 < of[4, "relu", f"{scheme}_{draw}"]["activations"] < expected * 3
    assert 0.16**-3 / 3 < of[4, "relu", "random_normal"]["activations"] < 0.16**-3 * 3
    assert {"2", "3"} <= set(of[4, "relu", "he_normal"]["criteria"].split())
    assert not {"3", "4"} & set(of[4, "relu", "random_normal"]["criteria"].split())
