"""Hyperplanes through the origin, counted against the angles between images; z-scores learn fastest."""

import json
import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_initkit.examples import reproduce

pytestmark = pytest.mark.slow
HYPERPLANES = 1000


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def inputs(out):
    rows = reproduce("preprocessing", str(out), seed=2, epochs=3, hyperplanes=HYPERPLANES)["inputs"]
    return {row["inputs"]: row for row in rows}


def test_two_images_are_separated_with_probability_angle_over_pi(inputs):
    assert list(inputs) == ["raw", "mean subtracted", "z-scored", "PCA-whitened", "ZCA-whitened"]
    for row in inputs.values():
        # 2 p (1 - p) lies between 0 and 1/2: its standard deviation over hyperplanes is at most 1/4.
        assert row["pairs apart"] == pytest.approx(row["expected"], abs=4 * 0.25 / math.sqrt(HYPERPLANES))


def test_raw_images_lie_in_one_direction_and_others_all_around(inputs):
    pixels = load_digits().data
    pixels = pixels / np.linalg.norm(pixels, axis=1, keepdims=True)
    angle = np.arccos(np.clip(pixels @ pixels.T, -1, 1)).mean()
    assert inputs["raw"]["expected"] == pytest.approx(angle / np.pi, rel=0.02)  # the training part of them
    assert inputs["raw"]["by a tenth"] < 0.75
    for name in list(inputs)[1:]:
        # Directions that balance around the origin are on average at right angles.
        assert inputs[name]["pairs apart"] == pytest.approx(0.5, abs=0.02)
        assert inputs[name]["planes split"] == 1


def test_z_scores_have_the_scale_that_weights_expect_and_learn_fastest(inputs):
    # 3 of the 64 pixels are never on; whitening keeps some forty components.
    assert 61 / 64 - 0.03 < inputs["z-scored"]["mean square"] <= 1
    assert min(inputs, key=lambda name: inputs[name]["loss"][-1]) == "z-scored"
    assert inputs["raw"]["loss"][-1] < inputs["raw"]["loss"][0]


def test_numbers_and_figure_are_written_with_the_options_they_hold_for(inputs, out):
    written = json.loads((out / "preprocessing.json").read_text())
    assert written["options"] == {"seed": 2, "data": "digits", "epochs": 3, "hyperplanes": HYPERPLANES}
    assert {row["inputs"]: row for row in written["numbers"]["inputs"]} == inputs
    assert (out / "preprocessing.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((out / "logs" / "preprocessing").rglob("events.out.tfevents.*"))) == len(inputs)
