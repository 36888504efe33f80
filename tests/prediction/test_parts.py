"""Groups of units that are distributed differently, such as those of concatenated branches; few weights to a unit."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_initkit.prediction import predict
from keras_initkit.prediction.algebra._parts import mixture
from keras_initkit.prediction.algebra._signals import Signal
from keras_initkit.statistics._tap import Tap

L = keras.layers
pytestmark = pytest.mark.one_backend


def branches(*after):
    """Two branches of different scale, 64 and 128 units, joined and passed on; also each by itself."""
    inputs = keras.Input((8, 8, 64))
    small, large = (
        L.Conv2D(units, 1, kernel_initializer=keras.initializers.RandomNormal(0, deviation, seed=0), name=name)(inputs)
        for name, units, deviation in (("small", 64, 0.1), ("large", 128, 0.3))
    )
    ends = []
    for place, x in enumerate([L.Concatenate(name="join")([small, large]), small, large]):
        for make in after:
            x = make(place)(x)
        ends.append(x)
    return keras.Model(inputs, ends)


def norm(place):
    return L.BatchNormalization(name=f"norm{place}", epsilon=0.5)


def relu(place):
    return L.ReLU(name=f"relu{place}")


def pool(place):
    return L.MaxPooling2D(2, name=f"pool{place}")


@pytest.mark.parametrize("after", [(relu,), (norm, relu), (relu, pool)], ids=["relu", "norm", "pool"])
def test_each_group_is_passed_by_itself(after):
    found = predict(branches(*after))
    assert found.unpredicted == {}
    for make in after:
        whole, small, large = (found[Tap("output", make(place).name, 0)] for place in range(3))
        assert whole.mean == pytest.approx((small.mean + 2 * large.mean) / 3)
        second = [each.variance + each.mean**2 for each in (whole, small, large)]
        assert second[0] == pytest.approx((second[1] + 2 * second[2]) / 3)


def test_gradients_of_groups_are_their_own():
    found = predict(branches(norm))
    joined, small, large = (found[Tap("input_gradient", f"norm{place}", 0)].variance for place in range(3))
    assert joined == pytest.approx((small + 2 * large) / 3)
    assert small > 2 * large
    assert found[Tap("output_gradient", "small", 0)].variance == pytest.approx(2 * small)
    assert found[Tap("output_gradient", "large", 0)].variance == pytest.approx(2 * large)


@pytest.mark.parametrize(("second", "alike"), [(1.009, True), (1.011, False)])
def test_groups_that_hardly_differ_are_one(second, alike):
    found = mixture([(0.5, Signal(0.0, 1.0, gaussian=True)), (0.5, Signal(0.0, second, gaussian=True))])
    assert found.identically_distributed == alike
    assert bool(found.parts) != alike


def test_units_of_a_depthwise_convolution_have_the_variances_that_their_weights_give():
    """Against the same sums over explicit positions, for white inputs of mean 0."""
    layer = L.DepthwiseConv2D(3, padding="same", name="depthwise", use_bias=False,
                              depthwise_initializer=keras.initializers.RandomNormal(0, 0.3, seed=1))  # fmt: skip
    model = keras.Sequential([keras.Input((4, 4, 6)), layer, L.BatchNormalization(name="norm", epsilon=0.1)])
    kernel = ops.convert_to_numpy(layer.kernel.value).astype("float64")[..., 0]
    variances = np.zeros(6)
    for row, column in np.ndindex(4, 4):
        for i, j in np.ndindex(3, 3):
            if 0 <= row + i - 1 < 4 and 0 <= column + j - 1 < 4:
                variances += kernel[i, j] ** 2 / 16
    found = predict(model, (0.0, 1.0))
    assert found[Tap("output", "depthwise", 0)].variance == pytest.approx(variances.mean())
    expected = (variances / (variances + 0.1)).mean()
    assert found[Tap("output", "norm", 0)].variance == pytest.approx(expected, rel=1e-6)
    uneven = variances.mean() / (variances.mean() + 0.1)
    assert abs(expected / uneven - 1) > 0.01


def test_pooled_means_after_a_depthwise_convolution_are_those_of_a_measured_network():
    """Few weights and few positions: as Gaussian fields of one correlation they would be a fifth too small."""
    ratios = []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        x = inputs = keras.Input((4, 4, 128))
        x = L.Activation("silu")(L.BatchNormalization()(L.Conv2D(128, 1, use_bias=False)(x)))
        x = L.BatchNormalization()(L.DepthwiseConv2D(5, padding="same", use_bias=False)(x))
        model = keras.Model(inputs, L.GlobalAveragePooling2D(name="pool")(L.Activation("silu", name="silu")(x)))
        y = model(np.random.default_rng(seed).normal(size=(64, 4, 4, 128)).astype("float32"), training=True)
        expected = predict(model)[Tap("output", "pool", 0)].variance
        ratios.append(float(np.var(ops.convert_to_numpy(y))) / expected)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_a_mask_that_is_chosen_by_where_and_zeros_that_are_padded():
    class Block(L.Layer):
        def call(self, x):
            kept = ops.convert_to_tensor(np.arange(6)[None, :, None] < 3)
            return ops.pad(ops.where(kept, x, ops.zeros_like(x)), [[0, 0], [1, 1], [0, 0]])

        def compute_output_shape(self, shape):
            return (shape[0], shape[1] + 2, shape[2])

    model = keras.Sequential([keras.Input((6, 64)), L.Dense(64, name="dense"), Block(name="block")])
    found = predict(model)
    assert found.unpredicted == {}
    given = found[Tap("output", "dense", 0)].variance
    assert found[Tap("output", "block", 0)].variance == pytest.approx(given * 3 / 8)


def test_gradients_of_all_examples_reach_a_position():
    inputs, places = keras.Input((6, 64)), keras.Input((6,), batch_size=1, dtype="int32")
    table = L.Embedding(6, 64, name="positions")
    model = keras.Model([inputs, places], L.Add(name="add")([inputs, table(places)]))
    from keras_initkit.prediction import InputMoments

    found = predict(model, [InputMoments(examples=16), None])
    assert found[Tap("output_gradient", "positions", 0)].variance == pytest.approx(16.0)
