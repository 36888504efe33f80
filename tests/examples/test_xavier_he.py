"""Xavier and He by layer, against the recursions that derive them, by SciPy's quadrature."""

import math

import numpy as np
import pytest
from helpers import second_moment

from keras_initkit.examples import reproduce

WIDTH, LAYERS = 256, 6


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    out = str(tmp_path_factory.mktemp("out"))
    return reproduce("xavier_he", out, seed=1, width=WIDTH, layers=LAYERS)["layers"]


def column(layers, pair, name):
    return np.array([row[name] for row in layers if row[""] == pair])


def tolerance(depth, kurtosis):
    """Four standard errors of a logarithm of a variance after so many layers; of one, sqrt((kurtosis - 1) / width)."""
    return 4 * math.sqrt(depth * (kurtosis - 1) / WIDTH)


def test_xavier_keeps_tanh_but_for_what_it_bends(layers):
    measured = column(layers, "Xavier, tanh", "activations' sd") ** 2
    variance = second_moment(np.tanh, 64 * 2 / (64 + WIDTH))
    for depth, each in enumerate(measured, 1):
        assert abs(math.log(each / variance)) < tolerance(depth, kurtosis=3)
        variance = second_moment(np.tanh, variance)


@pytest.mark.parametrize(("pair", "factor"), [("Xavier, relu", 0.5), ("He, relu", 1.0)])
@pytest.mark.parametrize("direction", ["activations' sd", "gradients' sd"])
def test_relu_loses_half_of_the_variance_in_each_layer_unless_it_is_given_back(layers, pair, factor, direction):
    sds = column(layers, pair, direction)
    if direction == "gradients' sd":
        sds = sds[::-1]
    # E[relu(z)^4] / E[relu(z)^2]^2 = 6
    change = math.log((sds[-1] / sds[0]) ** 2 / factor ** (LAYERS - 1))
    assert abs(change) < tolerance(LAYERS - 1, kurtosis=6)


def test_theory_stands_beside_it(layers):
    for pair in ("Xavier, tanh", "Xavier, relu", "He, relu"):
        for measured, predicted in (("activations' sd", "predicted"), ("gradients' sd", "predicted ")):
            ratio = column(layers, pair, measured) / column(layers, pair, predicted)
            assert np.abs(2 * np.log(ratio)).max() < tolerance(LAYERS, kurtosis=6)
