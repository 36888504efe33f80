"""What theory says of ten hidden layers, asserted on the result of a comparison.

A layer's variance is a random number: it is drawn anew with the weights. For a ReLU layer of width n after
He's scaling, a unit's square is the square of half a normal variable times 2, so E = 1 and E[.^2] = 4 * 3 / 2 = 6:
the mean of n of them has variance 5/n. Hence the logarithm walks by a step of mean -5/(2n) and variance 5/n a
layer, and the mean over ten seeds by a tenth of that variance.
"""

import math

import keras
import numpy as np
import pytest
from helpers import second_moment
from scipy import stats
from sklearn.datasets import load_digits

import keras_initkit as ik

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() == "jax", reason="compiles many models"),
]

DEPTH, WIDTH, SEEDS = 10, 128, 10
STEPS = DEPTH - 1
RELU_STEP = 5 / WIDTH  # variance of one step of the log-variance
RELU_DRIFT = -RELU_STEP / 2
FOUR_ERRORS = 4 * math.sqrt(STEPS * RELU_STEP / SEEDS)  # 0.75 over nine layers


@pytest.fixture(scope="module")
def compare(tmp_path_factory):
    """compare() of ten layers over ten seeds, on 160 digits; variances by initializer, (seeds, layers)."""
    digits = load_digits()
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, x=np.kron(digits.images[:160], np.ones((8, 4))), y=digits.target[:160])

    def variances(initializers, activation, seeds=SEEDS):
        result = ik.compare(
            initializers,
            activation=activation,
            depth=DEPTH,
            epochs=1,
            seeds=seeds,
            units=WIDTH,
            batch_size=64,
            data=str(path),
        )
        rows = {row["initializer"]: row for row in result.rows()}
        return rows, {name: np.array([r.forward for r in runs]) for name, runs in result.by_initializer().items()}

    return variances


@pytest.fixture(scope="module")
def relu(compare):
    return compare(["he_normal", "glorot_normal", "random_normal"], "relu")


@pytest.fixture(scope="module")
def tanh(compare):
    return compare(["activation_scaling", "glorot_normal"], "tanh")


def first_to_last(rows, name):
    """Logarithm of the factor between the geometric means at the last and the first hidden layer."""
    return math.log(rows[name]["activation_variance_last"] / rows[name]["activation_variance_first"])


def test_he_keeps_the_variance_of_relu(relu):
    rows, variances = relu
    change = first_to_last(rows, "he_normal")
    # The bound of a factor 2 is 2.8 standard errors below the drift, 4.6 above: seeds are fixed.
    assert abs(change) < math.log(2)
    assert change == pytest.approx(STEPS * RELU_DRIFT, abs=FOUR_ERRORS)
    logs = np.log(variances["he_normal"])
    assert change == pytest.approx((logs[:, -1] - logs[:, 0]).mean(), abs=1e-9)
    # The walk's spread over seeds: a chi-square of nine degrees of freedom lies in these bounds but for 1 in 1e4.
    # Only upwards: averaging over the batch's different images can make it narrower, not wider.
    spread = (logs[:, -1] - logs[:, 0]).var(ddof=1)
    assert spread < STEPS * RELU_STEP * stats.chi2.ppf(1 - 1e-4, SEEDS - 1) / (SEEDS - 1)
    assert spread > 0.25 * STEPS * RELU_STEP * stats.chi2.ppf(1e-4, SEEDS - 1) / (SEEDS - 1)


def test_glorot_halves_the_variance_of_relu_at_each_layer(relu):
    rows, variances = relu
    # Var W = 2 / (128 + 128) = 1/n, half of He's 2/n.
    steps = np.diff(np.log(variances["glorot_normal"]).mean(axis=0))
    assert steps == pytest.approx(np.full(STEPS, math.log(0.5) + RELU_DRIFT), abs=4 * math.sqrt(RELU_STEP / SEEDS))
    total = STEPS * (math.log(0.5) + RELU_DRIFT)
    assert first_to_last(rows, "glorot_normal") == pytest.approx(total, abs=FOUR_ERRORS)
    assert rows["glorot_normal"]["activation_variance_last"] < 0.01


def test_random_normal_loses_orders_of_magnitude(relu):
    rows, _ = relu
    # 128 weights of variance 0.05^2, and half of each square behind ReLU: 0.16 a layer, 7e-8 over nine.
    total = STEPS * (math.log(WIDTH * 0.05**2 / 2) + RELU_DRIFT)
    assert first_to_last(rows, "random_normal") == pytest.approx(total, abs=FOUR_ERRORS)
    assert first_to_last(rows, "random_normal") < math.log(1e-5)
    assert rows["random_normal"]["verdict"].startswith("signal vanishes")


def test_zeros_give_zero(compare):
    rows, variances = compare(["zeros"], "relu", seeds=2)  # which draw nothing
    assert (variances["zeros"] == 0).all()
    assert rows["zeros"]["activation_variance_first"] == rows["zeros"]["activation_variance_last"] == 0
    assert rows["zeros"]["dead"] == 1


def mean_field(first, weight_variance):
    """Variance of tanh activations, layer by layer: v' = E[tanh(sqrt(sigma_w^2 v) z)^2], from the first layer's."""
    values = [first]
    while len(values) < DEPTH:
        values.append(second_moment(math.tanh, weight_variance * values[-1]))
    return np.array(values)


# tanh bends large values back, so a deviation shrinks from layer to layer; without that it would walk as in a linear
# network, by 2/n a layer (a squared normal variable has variance 2). This bounds the fluctuation from above.
TANH_FOUR_ERRORS = 4 * np.sqrt(np.arange(1, DEPTH) * 2 / WIDTH / SEEDS)


def test_activation_scaling_keeps_the_variance_of_tanh(tanh):
    rows, variances = tanh
    assert abs(first_to_last(rows, "activation_scaling")) < math.log(2)
    # Its gain makes q = 1 a fixed point: the variance settles at E[tanh(z)^2] = 0.394.
    fixed = second_moment(math.tanh, 1.0)
    logs = np.log(variances["activation_scaling"])
    theory = mean_field(np.exp(logs[:, 0].mean()), 1 / fixed)
    assert np.abs(logs.mean(axis=0) - np.log(theory))[1:] == pytest.approx(np.zeros(STEPS), abs=0.1)
    # At the fixed point a deviation shrinks by d log v' / d log v = 0.55, so it does not walk: its variance
    # stays below 2/n / (1 - 0.55^2). Beside it stands a finite-width bias of order 1/n.
    tolerance = 4 * math.sqrt(2 / WIDTH / (1 - 0.55**2) / SEEDS) + 2 / WIDTH
    assert logs[:, -1].mean() == pytest.approx(math.log(fixed), abs=tolerance)


def test_glorot_lets_tanh_decay_as_one_over_depth(tanh):
    rows, variances = tanh
    measured = np.log(variances["glorot_normal"]).mean(axis=0)
    theory = np.log(mean_field(math.exp(measured[0]), 1.0))  # sigma_w^2 = 128 * 2 / (128 + 128)
    assert (np.abs(measured - theory)[1:] < TANH_FOUR_ERRORS).all()
    # E[tanh(sqrt(v) z)^2] = v - 2 v^2 + ..., so 1/v grows by 2 a layer: v falls as 1 / (1/v_1 + 2 (l - 1)).
    assert np.diff(1 / np.exp(theory)).mean() == pytest.approx(2, rel=0.1)
    # An error e of log v_10 is an error e / v_10 of 1/v_10, which is nearly all of the sum of nine growths.
    assert np.diff(1 / np.exp(measured)).mean() == pytest.approx(2, rel=0.1 + TANH_FOUR_ERRORS[-1])
    # Ten layers leave about a tenth, and the last step loses less than the first: no factor a layer does that.
    assert 0.05 < math.exp(first_to_last(rows, "glorot_normal")) < 0.2
    assert measured[-1] - measured[-2] > measured[1] - measured[0]
