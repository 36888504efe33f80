"""Batch normalization: the published sizes of gradients, mean-field theory by SciPy, and Keras' layer by hand."""

import math

import numpy as np
import pytest
from helpers import gaussian_mean
from scipy import optimize, special

from keras_initkit.examples import reproduce

pytestmark = pytest.mark.slow


def slope(x):
    return special.expit(x) * special.expit(-x)


VARIANCE = gaussian_mean(lambda x: special.expit(x) ** 2) - 0.25  # of a sigmoid of N(0, 1), whose mean is 1/2


def test_gradients_fall_by_five_orders_of_magnitude_and_stay_with_batch_normalization(tmp_path):
    numbers = reproduce("batch_norm_gradients", str(tmp_path), seed=1)
    plain, normalized = np.array(numbers["plain"]), np.array(numbers["normalized"])
    assert plain.shape == normalized.shape == (5, 11)
    assert (plain[:, -1] / plain[:, 0] >= 1e5).all()
    assert (normalized.max(axis=1) / normalized.min(axis=1) < 10**1.5).all()
    q = optimize.brentq(lambda q: gaussian_mean(lambda x: special.expit(x) ** 2, q) - q, 0.1, 1)
    theory = [math.sqrt(gaussian_mean(lambda x: slope(x) ** 2, v) / d) for v, d in ((q, 1), (1, VARIANCE))]
    assert numbers["factor"]["theory"] == pytest.approx(theory, rel=1e-4)
    # A layer of 100 units changes a norm by a factor whose logarithm has a deviation of sqrt(2 / 100) / 2 = 0.07; the
    # mean of eight layers: 0.025.
    assert numbers["factor"]["measured"] == pytest.approx(theory, rel=4 * 0.025)


def test_by_hand_it_is_keras_layer_to_single_precision(tmp_path):
    numbers = reproduce("batch_norm_by_hand", str(tmp_path), seed=2)
    assert list(numbers["differences"]) == ["output", "gradient of x", "gradient of gamma", "gradient of beta"]
    # Weights of up to 16, of which steps are taken off, and sums of ten terms of up to 10: some ten roundings.
    assert max(numbers["differences"].values()) < 16 * np.finfo("float32").eps * 4
    for row in numbers["inference"]:
        m = row["batch"]
        standard_error = 4 * math.sqrt(2 / (20000 * 6) * m / (m - 1))
        assert row["times m/(m-1)"] == pytest.approx(4, abs=4 * standard_error)
        assert row["average of σ²"] == pytest.approx(4 * (m - 1) / m, abs=4 * standard_error)
        assert row["Keras / σ²"] == pytest.approx(1, abs=1e-5)


def test_gamma_and_beta_let_a_sigmoid_leave_the_line(tmp_path):
    numbers = reproduce("batch_norm_gamma_beta", str(tmp_path), seed=0, epochs=12)
    share = gaussian_mean(lambda x: x * special.expit(x)) ** 2 / VARIANCE
    assert numbers["theory"] == pytest.approx(share, rel=1e-4)
    rows = {(row["gamma, beta"], row["layer"]): row for row in numbers["layers"]}
    for layer in (1, 2, 3):
        left_out, learned = rows["left out", layer], rows["learned", layer]
        assert 0.95 < left_out["sd before sigmoid"] <= 1.0001  # the epsilon of 1e-3 takes a little off
        assert left_out["linear share"] > 0.97  # not all units are Gaussian any more
        assert learned["sd before sigmoid"] > left_out["sd before sigmoid"]
        assert learned["linear share"] < left_out["linear share"]
    assert rows["learned", 1]["loss"] < rows["left out", 1]["loss"]
