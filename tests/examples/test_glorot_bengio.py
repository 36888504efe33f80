"""Glorot and Bengio's figures: saturation while training, cost surfaces, standard against normalized weights."""

import math

import numpy as np
import pytest
from helpers import second_moment
from scipy import special

from keras_initkit.examples import reproduce


def test_the_last_sigmoid_layer_is_driven_to_saturation_and_slowly_out_of_it(tmp_path):
    numbers = reproduce("saturation", str(tmp_path), epochs=72)
    mean, sd, loss = (np.array(numbers["sigmoid"][key]) for key in ("mean", "sd", "loss"))
    assert mean.shape == sd.shape == (72, 4)
    driven = mean[:, 3].argmin()
    assert mean[driven, 3] < 0.05  # units at 0,
    assert sd[driven, 3] < 0.01  # for every example
    assert (mean[: driven + 1, :3] > 0.3).all()  # the layers below are not
    assert loss[5:driven].min() > 0.98 * math.log(10)  # meanwhile nothing is learned
    assert sd[-1, 3] > 0.1
    assert loss[-1] < 0.5 * math.log(10)
    for name, limit in (("tanh", 0.9), ("softsign", 0.6)):
        assert numbers[name]["loss"][-1] < 0.1  # in a quarter of the epochs
        assert np.max(numbers[name]["sd"]) < limit


def test_the_quadratic_cost_has_plateaus_where_the_cross_entropy_is_steep(tmp_path):
    numbers = reproduce("cost_surfaces", str(tmp_path), seed=1, points=21)
    w, x, y = np.array(numbers["weights"]), np.array(numbers["inputs"]), np.array(numbers["labels"])
    logits = 2 * w[None, :, None] * np.tanh(w[:, None, None] * x) * np.where(y, 1, -1)  # of the right class
    wrong = special.expit(-logits)
    np.testing.assert_allclose(numbers["surfaces"]["cross-entropy"], -np.log1p(-wrong).mean(axis=-1), rtol=1e-4)
    np.testing.assert_allclose(numbers["surfaces"]["quadratic"], (wrong**2).mean(axis=-1), rtol=1e-4)
    entropy, quadratic = numbers["costs"]
    assert entropy["share flatter than 0.05"] == 0 < 0.1 < quadratic["share flatter than 0.05"]
    assert entropy["slope in the corner"] > 5 * quadratic["slope in the corner"]


WIDTH = 400


def test_standard_weights_lose_signal_up_and_gradient_down_and_normalized_ones_do_not(tmp_path):
    rows = reproduce("standard_normalized", str(tmp_path), seed=1, width=WIDTH)["layers"]
    of = {name: [row for row in rows if row["weights"] == name] for name in ("standard", "normalized")}
    for name, scale in (("standard", 1 / 3), ("normalized", 1)):
        variance = of[name][0]["Var of activations"]
        for depth, row in enumerate(of[name][1:], 1):
            variance = second_moment(np.tanh, scale * variance)
            # Each layer adds a relative error of sqrt(2 / width) to the variance of a draw.
            tolerance = 4 * math.sqrt(2 * depth / WIDTH)
            assert row["Var of activations"] == pytest.approx(variance, rel=tolerance)
        for layer in (2, 3, 4):  # 1-based; layer 5 is where the formula starts
            row, tolerance = of[name][layer - 1], 4 * math.sqrt(2 * (5 - layer) / WIDTH)
            assert row["Var dCost/dW"] == pytest.approx(row["formula (W)"], rel=tolerance)
            assert row["Var dCost/ds"] < row["formula (s)"] * (1 + tolerance)  # tanh's slope takes from it
    ratios = {name: of[name][4]["Var dCost/ds"] / of[name][0]["Var dCost/ds"] for name in of}
    assert ratios["standard"] > 3**4 / (1 + 4 * math.sqrt(8 / WIDTH))
    assert ratios["normalized"] < 5
    sizes = [row["Var dCost/dW"] for row in of["standard"]]
    assert max(sizes) / min(sizes) < 2  # the paper's surprise: of one size all the same
