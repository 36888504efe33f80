"""Data-dependent initialization, against Keras' own submodels and gradients written down in NumPy."""

import keras
import numpy as np
import pytest
from helpers import values
from keras import layers

from keras_initkit.schemes import initialize

pytestmark = pytest.mark.one_backend

RANDOM = np.random.default_rng(0)
# float32 sums of thousands of terms, in each of a few layers.
ROUNDING = 1e-3


def normal(*shape):
    return RANDOM.standard_normal(shape).astype("float32")


def noted(report, layer):
    return next(each.note or each.skipped for each in report.weights if each.layer == layer)


def by_unit(z):
    return z.reshape(-1, z.shape[-1])


def outputs_of(model, names, x):
    inner = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    return [values(z) for z in inner(x, training=True)]


def convolutions():
    inputs = keras.Input((10, 10, 6))
    x = layers.Conv2D(12, 3, padding="same", name="conv")(inputs)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(x)
    x = layers.MaxPooling2D()(layers.ReLU()(x))
    x = layers.Conv2D(16, 3, groups=4, padding="same", name="grouped")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(layers.LeakyReLU()(x))
    x = layers.Conv2DTranspose(10, 3, strides=2, padding="same", name="transposed")(layers.ReLU()(x))
    x = layers.Dense(7, name="head")(layers.Flatten()(layers.ReLU()(x)))
    return keras.Model(inputs, x)


NAMES = ["conv", "depthwise", "grouped", "separable", "transposed", "head"]


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_every_unit_has_mean_beta_and_variance_1(beta):
    model, x = convolutions(), normal(64, 10, 10, 6) + 1
    initialize(model, "data_dependent", x, seed=0, beta=beta, between_layers=False)
    for name, z in zip(NAMES, outputs_of(model, NAMES, x), strict=True):
        np.testing.assert_allclose(by_unit(z).mean(0), beta, atol=ROUNDING, err_msg=name)
        np.testing.assert_allclose(by_unit(z).var(0), 1, rtol=ROUNDING, err_msg=name)


def test_units_of_attention_projections():
    inputs = keras.Input((9, 12))
    attention = layers.MultiHeadAttention(3, 4, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    x = normal(64, 9, 12) * np.linspace(0.1, 3, 12).astype("float32")
    initialize(model, "data_dependent", x, seed=0, between_layers=False)
    for part in (attention._query_dense, attention._key_dense, attention._value_dense):
        z = np.einsum("btc,chd->bthd", x.astype("float64"), values(part.kernel)) + values(part.bias)
        np.testing.assert_allclose(z.mean((0, 1)), 0, atol=ROUNDING)
        np.testing.assert_allclose(z.var((0, 1)), 1, rtol=ROUNDING)
    np.testing.assert_allclose(by_unit(values(model(x))).var(0), 1, rtol=ROUNDING)


def test_einsum_axes_in_another_order_and_a_shared_bias():
    inputs = keras.Input((5, 6))
    layer = layers.EinsumDense("abc,dec->aedb", (4, 3, 5), bias_axes="d")
    model = keras.Model(inputs, layer(inputs))
    x = normal(256, 5, 6) + 0.5
    initialize(model, "data_dependent", x, seed=0, between_layers=False)
    z = values(model(x))  # (examples, e, d, positions)
    np.testing.assert_allclose(z.var((0, 3)), 1, rtol=ROUNDING)
    np.testing.assert_allclose(z.mean((0, 1, 3)), 0, atol=ROUNDING)


def rates(kernels, biases, x, cotangent):
    """The rates of a relu network's kernels, from back-propagation written down."""
    inputs, masks, h = [], [], x.astype("float64")
    for place, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        inputs.append(h)
        z = h @ kernel + bias
        masks.append(z > 0 if place < len(kernels) - 1 else np.ones_like(z))
        h = z * masks[-1]
    found, delta = [], cotangent
    for kernel, h, mask in zip(kernels[::-1], inputs[::-1], masks[::-1], strict=True):
        delta = delta * mask
        found.append(np.sqrt(np.mean((h.T @ delta) ** 2) / np.mean(kernel**2)))
        delta = delta @ kernel.T
    return np.array(found[::-1])


def relu_network(*widths):
    model = keras.Sequential([keras.Input((widths[0],))])
    for width in widths[1:-1]:
        model.add(layers.Dense(width, "relu"))
    model.add(layers.Dense(widths[-1]))
    return model


def weights_of(model):
    return [values(layer.kernel) for layer in model.layers], [values(layer.bias) for layer in model.layers]


def test_layers_of_a_relu_network_change_at_one_rate_and_it_computes_the_same():
    widths = (20, 200, 30, 120, 10)
    x = normal(256, 20)
    within, both = relu_network(*widths), relu_network(*widths)
    initialize(within, "data_dependent", x, seed=3, beta=0.5, between_layers=False)
    initialize(both, "data_dependent", x, seed=3, beta=0.5)
    np.testing.assert_allclose(values(both(x)), values(within(x)), atol=10 * ROUNDING)
    # Other random losses. A gradient of the last kernel has about 10 independent parts (the mean of its input times
    # each output), so its mean square over 8 losses is known to sqrt(2 / 80) = 16 % and a rate to 8 %; over the 20
    # here to 5 %. Their errors have much in common, and 1.2 is two standard errors without it.
    cotangents = RANDOM.standard_normal((20, 256, 10))
    before, after = (
        np.sqrt(np.mean([rates(*weights_of(model), x, each) ** 2 for each in cotangents], axis=0))
        for model in (within, both)
    )
    assert before.max() / before.min() > 3
    assert after.max() / after.min() < 1.2


def test_where_rates_do_not_agree_the_closest_are_kept_and_said():
    model, other = relu_network(8, 60, 5, 3), relu_network(8, 60, 5, 3)
    x = normal(64, 8)
    report = initialize(model, "data_dependent", x, seed=0, rounds=1)  # nobody has looked at what it would do
    initialize(other, "data_dependent", x, seed=0, between_layers=False)
    assert "rates of change agree to a factor" in noted(report, report.weights[0].layer)
    for mine, others in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(values(mine), values(others))


def test_residual_branches():
    inputs = keras.Input((16,))
    x = layers.Dense(16, name="stem")(inputs)
    for _ in range(3):
        branch = layers.Dense(128, "relu")(x)
        x = layers.Add()([x, layers.Dense(16)(branch)])
    model = keras.Model(inputs, layers.Dense(4, name="head")(x))
    report = initialize(model, "data_dependent", normal(128, 16), seed=0)
    assert noted(report, "head") == ""
    assert all(np.isfinite(values(weight)).all() for weight in model.weights)


def test_what_is_no_part_of_it_stays_and_is_named():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 8, name="rows")(inputs)
    x = layers.LSTM(5, name="lstm")(x)
    model = keras.Model(inputs, layers.Dense(3, "tanh", name="head")(x))
    before = {weight.path: values(weight) for weight in model.weights}
    report = initialize(model, "data_dependent", seed=0)
    changed = {w.path for w in model.weights if not np.array_equal(values(w), before[w.path])}
    assert changed == {"head/kernel", "head/bias"}
    assert "embedding: rows are looked up" in noted(report, "rows")
    assert "recurrent cells" in noted(report, "lstm")


def test_dead_units_are_named_and_left():
    x = np.concatenate([normal(64, 3), np.zeros((64, 1), "float32")], axis=1)
    model = keras.Sequential([keras.Input((4,)), layers.Reshape((1, 4)), layers.DepthwiseConv1D(1, name="by_channel")])
    report = initialize(model, "data_dependent", x, seed=0)
    assert "1 of its 4 units have variance 0" in noted(report, "by_channel")
    z = by_unit(values(model(x)))
    np.testing.assert_allclose(z.var(0), [1, 1, 1, 0], atol=ROUNDING)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": float("nan")}, "beta: got nan, expected a finite number"),
        ({"rounds": 0}, "rounds: got 0, expected a positive integer"),
        ({"alpha": 1}, "alpha: 'data_dependent' has no such option"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        initialize(relu_network(4, 3), "data_dependent", normal(8, 4), **options)
