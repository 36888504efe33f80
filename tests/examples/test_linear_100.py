"""One hundred linear layers: the sources' own numbers, each as close as one draw of 512-wide layers allows."""

import math

import pytest

from keras_initkit.examples import reproduce

pytestmark = pytest.mark.slow

WIDTH = 512


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return reproduce("linear_100", str(tmp_path_factory.mktemp("out")), seed=5)


def test_weights_of_variance_one_overflow_at_layer_29(numbers):
    assert numbers["lost_at"]["1"] == 29
    assert math.sqrt(WIDTH) ** 28 < 3.4028e38 < math.sqrt(WIDTH) ** 29


def test_the_standard_deviation_of_one_matrix_product_is_the_root_of_its_width(numbers):
    # A standard deviation of 512 numbers has a relative error of 1 / sqrt(2 * 512), as has that of the input's 512.
    assert numbers["sd"]["1"][0] == pytest.approx(math.sqrt(WIDTH), rel=4 * math.sqrt(2) / math.sqrt(2 * WIDTH))


def test_weights_of_a_hundredth_vanish(numbers):
    # 0.226 a layer reaches the smallest normal float32, 1.2e-38, after 59 layers, the smallest of all after 70;
    # a hundred layers' errors in the logarithm, each of sqrt(1 / (2 * 512)), move that by less than one layer.
    factor = math.log(0.01 * math.sqrt(WIDTH))
    earliest, latest = (math.log(least) / factor for least in (1.1755e-38, 1.4e-45))
    assert earliest - 2 < numbers["lost_at"]["0.01"] < latest + 2
    assert numbers["sd"]["0.01"][-1] == 0


def test_the_inverse_root_of_the_width_survives(numbers):
    sds = numbers["sd"]["1/sqrt(512)"]
    assert numbers["lost_at"]["1/sqrt(512)"] is None
    assert len(sds) == 100
    for layer, sd in enumerate(sds, 1):
        assert abs(math.log(sd)) < 4 * math.sqrt((layer + 1) / (2 * WIDTH))
