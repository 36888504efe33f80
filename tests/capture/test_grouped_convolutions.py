"""Convolutions in groups are probed like any other, also where TensorFlow's own kernels have no gradient of them."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_initkit import probe

ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="kernels of TensorFlow")
GENERATOR = np.random.default_rng(0)


def models(make, shape):
    """A convolution in two groups, and two convolutions beside each other with the same kernels."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    whole = keras.Model(inputs, layers.Flatten()(make(6, groups=2, name="conv")(inputs)))
    parts = [make(3, name=name) for name in "ab"]
    halves = [inputs[..., :2], inputs[..., 2:]]
    apart = keras.Model(
        inputs, layers.Flatten()(layers.Concatenate()([p(h) for p, h in zip(parts, halves, strict=True)]))
    )
    kernel, bias = whole.get_layer("conv").get_weights()
    for part, half in zip(parts, (slice(0, 3), slice(3, 6)), strict=True):
        part.set_weights([kernel[..., half], bias[half]])
    return whole, apart


@pytest.mark.parametrize(
    ("kind", "options"),
    [(layers.Conv1D, {}), (layers.Conv2D, {}), (layers.Conv2D, {"strides": 2}), (layers.Conv2D, {"dilation_rate": 2})],
)
def test_gradients_are_those_of_the_groups_apart(kind, options):
    # A side of as many elements as a group has channels is none.
    shape = (9, 4) if kind is layers.Conv1D else (9, 9, 4) if options else (2, 9, 4)
    size = 2 if kind is layers.Conv2D and not options else 3
    whole, apart = models(lambda units, **names: kind(units, size, activation="relu", **options, **names), shape)
    x = GENERATOR.standard_normal((8, *shape)).astype("float32")
    y = GENERATOR.standard_normal((8, whole.output_shape[-1])).astype("float32")
    read, expected = probe(whole, x, y, loss="mse"), probe(apart, x, y, loss="mse")

    def square(report, paths):
        rows = [r for r in report.rows if r.tap.kind == "weight_gradient" and r.tap.layer in paths]
        return sum(r.moments.m2 + r.moments.count * r.moments.mean**2 for r in rows if r.tap.name == "kernel")

    assert square(read, {"conv"}) == pytest.approx(square(expected, {"a", "b"}), rel=1e-4)
    assert read.statistic("activation_variance")["conv"] > 0


@ON_TENSORFLOW
def test_without_onednn_and_in_three_dimensions():
    program = """
import keras, numpy as np, keras_initkit as ik
for kind, rank in ((keras.layers.Conv1D, 1), (keras.layers.Conv2D, 2), (keras.layers.Conv3D, 3)):
    model = keras.Sequential([keras.Input((6,) * rank + (4,)), kind(4, 3, groups=2), keras.layers.Flatten()])
    assert ik.probe(model).statistic("weight_gradient_variance")
"""
    settings = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
    subprocess.run([sys.executable, "-c", program], check=True, env=settings, capture_output=True)
