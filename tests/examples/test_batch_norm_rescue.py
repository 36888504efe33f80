"""Bad weights with and without batch normalization, for ReLU, whose numbers have closed forms."""

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_initkit.examples import reproduce

pytestmark = pytest.mark.slow
WIDTH = 64


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = str(tmp_path_factory.mktemp("out"))
    runs = reproduce("batch_norm_rescue", out, seed=1, epochs=4, width=WIDTH, activations="relu")["runs"]
    return {(run["weights' sd"], run["norm."]): run for run in runs}


@pytest.mark.parametrize("sd", [0.01, 1.0])
def test_without_it_each_layer_multiplies_the_variance(runs, sd):
    sds = runs[sd, "no"]["sd"]
    change = math.log((sds[-1] / sds[0]) ** 2 / (sd**2 * WIDTH / 2) ** 5)
    assert abs(change) < 4 * math.sqrt(5 * 5 / WIDTH)  # of each layer sqrt((6 - 1) / width)


@pytest.mark.parametrize("sd", [0.01, 1.0])
def test_with_it_the_weights_scale_matters_only_beside_epsilon(runs, sd):
    # Normalization leaves q = v / (v + epsilon) of a variance v over examples; relu(z), z ~ N(0, q), has the variance
    # q / 2 - q / (2 pi).
    pixels = load_digits().data
    expected, variance = [], pixels.var(axis=0).mean() / pixels.var()
    for fan_in in (64, *[WIDTH] * 5):
        v = fan_in * sd**2 * variance
        variance = v / (v + 1e-3) * (0.5 - 0.5 / math.pi)
        expected.append(math.sqrt(variance))
    # A unit's values over real data are not quite Gaussian: a tenth.
    np.testing.assert_allclose(runs[sd, "yes"]["sd"], expected, rtol=0.1)


def test_with_it_both_learn(runs):
    for sd in (0.01, 1.0):
        with_it, without = runs[sd, "yes"], runs[sd, "no"]
        assert with_it["loss"][-1] < 0.5 * with_it["loss"][0]
        assert with_it["loss"][-1] < without["loss"][-1]
    assert runs[0.01, "no"]["loss"][-1] == pytest.approx(math.log(10), rel=0.01)  # no signal: as good as chance
