"""A deep post-norm transformer: from Keras' own kernels it stays at a guess, under the presets it trains."""

import math

import pytest

from keras_initkit.examples import reproduce

pytestmark = pytest.mark.slow

BLOCKS, WIDTH = 24, 32


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return reproduce("presets", str(tmp_path_factory.mktemp("out")), seed=0)


def test_only_the_presets_train(numbers):
    assert numbers["losses"]["as built"][-1] > 0.95 * math.log(10)
    for start in ("gpt2", "nanochat", "deepnorm"):
        losses = numbers["losses"][start]
        assert losses[0] == pytest.approx(math.log(10), rel=0.02)
        assert losses[-1] < 0.85 * math.log(10)


def test_deviations_are_the_closed_forms(numbers):
    found = numbers["deviations"]
    assert found["gpt2"]["mlp out"] == pytest.approx(0.02 / math.sqrt(2 * BLOCKS), rel=0.02)
    assert found["nanochat"]["attention output"] == found["nanochat"]["mlp out"] == 0
    alpha, beta = (2 * BLOCKS) ** 0.25, (8 * BLOCKS) ** -0.25
    xavier = math.sqrt(2 / (5 * WIDTH))
    assert found["deepnorm"]["mlp in"] == pytest.approx(beta * xavier, rel=0.02)
    assert found["deepnorm"]["mlp out"] == pytest.approx(beta * xavier / alpha, rel=0.02)
