"""LSUV: pre-activations by NumPy or by Keras' own submodels, never by the code under test."""

import re

import keras
import numpy as np
import pytest
from helpers import values
from keras import layers, ops

from keras_initkit.schemes import initialize
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes.data_driven._lsuv import lsuv
from keras_initkit.structure import weighted_layers

pytestmark = pytest.mark.one_backend

# Scaled to 1 % of the target (the default tolerance); a measurement in float32 adds less than as much.
EXACT = 0.02
RANDOM = np.random.default_rng(0)


def run(model, x, **options):
    plan = Plan(model, weighted_layers(model), x, None, 0)
    lsuv(plan, **options)
    return plan


def noted(plan, name):
    return next(change.note or change.skipped for change in plan.changes() if change.layer == name)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype("float32")


def linear_outputs(model, x, training=True):
    """The output of every layer that has a kernel and no activation, by a model of Keras' own."""
    names = [layer.name for layer in model.layers if getattr(layer, "kernel", None) is not None]
    inner = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    return {name: values(z) for name, z in zip(names, inner(x, training=training), strict=True)}


def test_unit_variance_in_a_deep_tanh_network():
    model = keras.Sequential([keras.Input((64,)), *[layers.Dense(64, "tanh") for _ in range(30)]])
    x = 5 * normal(256, 64) + 1
    run(model, x)
    h = x.astype("float64")
    for layer in model.layers:
        z = h @ values(layer.kernel) + values(layer.bias)
        assert z.var() == pytest.approx(1, rel=EXACT)
        h = np.tanh(z)


def convolutions():
    """Every kind of convolution, a residual branch that changes the scale, normalisation and dropout between."""
    inputs = keras.Input((12, 12, 8))
    x = layers.Conv2D(16, 3, padding="same", name="conv")(inputs)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.BatchNormalization()(x)
    branch = layers.SeparableConv2D(16, 3, padding="same", name="separable")(layers.ReLU()(x))
    x = layers.Add()([x, branch])
    x = layers.Conv2D(16, 3, strides=2, groups=4, padding="same", name="grouped")(layers.ReLU()(x))
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", name="transposed")(layers.ReLU()(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


def test_unit_variance_after_every_kind_of_convolution():
    model, x = convolutions(), normal(64, 12, 12, 8)
    run(model, x)
    names = ["conv", "depthwise", "separable", "grouped", "transposed", "head"]
    inner = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    for name, z in zip(names, inner(x, training=True), strict=True):
        assert values(z).var() == pytest.approx(1, rel=EXACT), name


def test_fresh_examples_have_variance_1_to_10_percent():
    model, x = convolutions(), normal(256, 12, 12, 8)
    run(model, x[:128])
    names = ["conv", "depthwise", "separable", "grouped", "transposed", "head"]
    inner = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    for name, z in zip(names, inner(x[128:], training=True), strict=True):
        assert values(z).var() == pytest.approx(1, rel=0.1), name


def test_projections_of_attention():
    inputs = keras.Input((10, 16))
    attention = layers.MultiHeadAttention(2, 8, name="attention")
    x = layers.LayerNormalization()(inputs)
    x = layers.Add()([inputs, attention(x, x)])
    model = keras.Model(inputs, layers.Dense(4, "gelu", name="head")(x))
    data = normal(64, 10, 16)
    run(model, data)
    h = data.astype("float64")
    normalized = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-3)
    q, k, v = (
        np.einsum("btc,chd->bthd", normalized, values(part.kernel))
        for part in (attention._query_dense, attention._key_dense, attention._value_dense)
    )
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(8)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    z = np.einsum("bthd,hdc->btc", np.einsum("bhts,bshd->bthd", weights, v), values(attention._output_dense.kernel))
    for name, each in {"q": q, "k": k, "v": v, "output": z}.items():
        assert each.var() == pytest.approx(1, rel=EXACT), name
    head = (h + z) @ values(model.get_layer("head").kernel)
    assert head.var() == pytest.approx(1, rel=EXACT)


def test_a_shared_layer_is_scaled_once_at_its_first_call():
    shared = layers.Dense(32, name="shared")
    inputs = keras.Input((32,))
    first = shared(inputs)
    second = shared(layers.Rescaling(3.0)(first))
    model, x = keras.Model(inputs, [first, second]), normal(256, 32)
    run(model, x)
    z, again = (values(each) for each in model(x))
    assert z.var() == pytest.approx(1, rel=EXACT)
    # An orthogonal kernel that keeps unit variance keeps that of its second input too, which is 9.
    assert again.var() == pytest.approx(9, rel=0.1)


class Twice(keras.Model):
    """Subclassed: its layers run in another order than they are made in, one of them never."""

    def __init__(self):
        super().__init__()
        self.second = layers.Dense(8, name="second")
        self.first = layers.Dense(16, "relu", name="first")
        self.unused = layers.Dense(3, name="unused")
        self.nested = keras.Sequential([keras.Input((8,)), layers.Dense(8, "tanh", name="inner")], name="nested")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, 16))
        self.unused.build(shape)

    def call(self, x):
        return self.nested(self.second(self.first(x)))


def test_subclassed_and_nested_models():
    model, x = Twice(), normal(256, 12)
    model(x[:2])
    plan = run(model, x)
    z = x @ values(model.first.kernel)
    assert z.var() == pytest.approx(1, rel=EXACT)
    z = np.maximum(z, 0) @ values(model.second.kernel)
    assert z.var() == pytest.approx(1, rel=EXACT)
    assert (z @ values(model.nested.layers[-1].kernel)).var() == pytest.approx(1, rel=EXACT)
    assert "does not call" in noted(plan, "unused")


def test_time_distributed_layers():
    model = keras.Sequential(
        [keras.Input((5, 6)), layers.TimeDistributed(layers.Dense(24, "tanh")), layers.Dense(3, name="head")]
    )
    x = 3 * normal(128, 5, 6)
    run(model, x)
    z = x @ values(model.layers[0].layer.kernel)
    assert z.var() == pytest.approx(1, rel=EXACT)
    assert (np.tanh(z) @ values(model.layers[1].kernel)).var() == pytest.approx(1, rel=EXACT)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm(cell, x, mask):
    """Gate pre-activations of the steps that are not masked, one step after another."""
    h = c = np.zeros((len(x), cell.units))
    seen = []
    for step in range(x.shape[1]):
        z = x[:, step] @ values(cell.kernel) + h @ values(cell.recurrent_kernel) + values(cell.bias)
        i, f, g, o = np.split(z, 4, axis=-1)
        kept = mask[:, step, None]
        new = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h, c = np.where(kept, sigmoid(o) * np.tanh(new), h), np.where(kept, new, c)
        seen.append(z[mask[:, step]])
    return np.split(np.concatenate(seen), 4, axis=-1)


def gru(cell, x, mask):
    h = np.zeros((len(x), cell.units))
    seen = []
    bias = values(cell.bias) if cell.reset_after else np.stack([values(cell.bias), 0 * values(cell.bias)])
    for step in range(x.shape[1]):
        of_x = np.split(x[:, step] @ values(cell.kernel) + bias[0], 3, axis=-1)
        of_h = np.split(h @ values(cell.recurrent_kernel) + bias[1], 3, axis=-1)
        update, reset = of_x[0] + of_h[0], of_x[1] + of_h[1]
        inner = of_h[2] * sigmoid(reset)
        if not cell.reset_after:
            inner = (sigmoid(reset) * h) @ values(cell.recurrent_kernel)[:, 2 * cell.units :]
        candidate = of_x[2] + inner
        kept = mask[:, step, None]
        h = np.where(kept, sigmoid(update) * h + (1 - sigmoid(update)) * np.tanh(candidate), h)
        seen.append(np.concatenate([update, reset, candidate], -1)[mask[:, step]])
    return np.split(np.concatenate(seen), 3, axis=-1)


def simple(cell, x, mask):
    h, seen = np.zeros((len(x), cell.units)), []
    for step in range(x.shape[1]):
        z = x[:, step] @ values(cell.kernel) + h @ values(cell.recurrent_kernel) + values(cell.bias)
        h = np.where(mask[:, step, None], np.tanh(z), h)
        seen.append(z[mask[:, step]])
    return [np.concatenate(seen)]


CELLS = {
    "LSTM": (lambda **o: layers.LSTM(12, **o), lstm),
    "GRU": (lambda **o: layers.GRU(12, **o), gru),
    "GRU before": (lambda **o: layers.GRU(12, reset_after=False, **o), gru),
    "SimpleRNN": (lambda **o: layers.SimpleRNN(12, **o), simple),
}


# JAX compiles a layer's loop anew for each pass over it.
@pytest.mark.parametrize(
    ("name", "go_backwards"), [("GRU", False), ("GRU before", True), ("LSTM", True), ("SimpleRNN", False)]
)
def test_gates_of_recurrent_layers_with_masks(name, go_backwards):
    make, oracle = CELLS[name]
    x = 2 * normal(64, 8, 6)
    x[RANDOM.random((64, 8)) < 0.3] = 0  # gaps too
    mask = (x != 0).any(-1)
    layer = make(go_backwards=go_backwards, return_sequences=True, zero_output_for_mask=True)
    model = keras.Sequential([keras.Input((8, 6)), layers.Masking(), layer, layers.Dense(3, name="head")])
    run(model, x)
    order = slice(None, None, -1 if go_backwards else 1)
    for z in oracle(layer.cell, x[:, order].astype("float64"), mask[:, order]):
        assert z.var() == pytest.approx(1, rel=EXACT)


def test_both_directions_and_an_initial_state():
    inputs, state = keras.Input((7, 5)), keras.Input((6,))
    both = layers.Bidirectional(layers.LSTM(6, return_sequences=True))
    plain = layers.SimpleRNN(6)
    model = keras.Model([inputs, state], plain(both(inputs), initial_state=state))
    x, h = normal(128, 7, 5), 2 * normal(128, 6)
    run(model, [x, h])
    every = np.ones((128, 7), bool)
    for layer, steps in ((both.forward_layer, x), (both.backward_layer, x[:, ::-1])):
        for z in lstm(layer.cell, steps.astype("float64"), every):
            assert z.var() == pytest.approx(1, rel=EXACT)
    sequence = values(keras.Model(inputs, both.output)(x))
    seen, h = [], h.astype("float64")
    for step in range(7):
        z = sequence[:, step] @ values(plain.cell.kernel) + h @ values(plain.cell.recurrent_kernel)
        h = np.tanh(z)
        seen.append(z)
    assert np.concatenate(seen).var() == pytest.approx(1, rel=EXACT)


def test_gates_of_convolutional_recurrent_layers():
    layer = layers.ConvLSTM2D(4, 3, padding="same", return_sequences=True)
    model = keras.Sequential([keras.Input((4, 6, 6, 3)), layer])
    x = normal(24, 4, 6, 6, 3)
    run(model, x)
    kernel, recurrent, bias = map(values, (layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias))
    h = c = np.zeros((24, 6, 6, 4))
    seen = []
    for step in range(4):
        z = convolved(x[:, step].astype("float64"), kernel) + convolved(h, recurrent) + bias
        i, f, g, o = np.split(z, 4, axis=-1)
        activations = [values(layer.cell.recurrent_activation(ops.convert_to_tensor(each))) for each in (i, f, o)]
        c = activations[1] * c + activations[0] * np.tanh(g)
        h = activations[2] * np.tanh(c)
        seen.append(z)
    for z in np.split(np.stack(seen), 4, axis=-1):
        assert z.var() == pytest.approx(1, rel=EXACT)


def convolved(x, kernel):
    """3 x 3, same padding."""
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = x.shape[1:3]
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


def test_cells_that_nobody_described_are_named():
    model = keras.Sequential([keras.Input((4, 3)), layers.RNN([layers.LSTMCell(4), layers.LSTMCell(4)], name="stack")])
    plan = run(model, normal(32, 4, 3))
    assert "StackedRNNCells" in noted(plan, "stack")


def test_mean_correction_by_unit():
    model = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(8, 3, name="conv"), layers.ReLU()])
    model.add(layers.Conv2D(4, 2, name="second"))
    x = normal(128, 6, 6, 4) + 2
    run(model, x, center=True, target_variance=2.0)
    for name, z in linear_outputs(model, x).items():
        assert z.var() == pytest.approx(2, rel=EXACT), name
        np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=1e-4)  # float32 sums of thousands of terms


def test_several_batches_stand_at_the_mean_of_what_each_asks_for():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, use_bias=False)])
    x = normal(64, 8) * np.repeat([0.5, 2.0], 32)[:, None].astype("float32")
    run(model, x, batches=4)
    # One layer: each pass multiplies by what makes W^2 the running mean of 1/Var to first order; the four batches
    # are random halves of both kinds, so their pooled variance is 1 to within the spread between them.
    assert values(model(x)).var() == pytest.approx(1, rel=0.15)
    run(model, x, batches=1)
    assert values(model(x)).var() == pytest.approx(1, rel=EXACT)


def test_data_are_drawn_where_there_are_none():
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(10, 8, name="rows"), layers.Dense(4)])
    rows = values(model.layers[0].embeddings)
    plan = run(model, None)
    assert "embedding" in noted(plan, "rows")
    np.testing.assert_array_equal(values(model.layers[0].embeddings), rows)
    x = RANDOM.integers(0, 10, (256, 4))
    # 10 rows seen 100 times each: a row's share varies by 10 %, that of the mean over rows by about 3 %.
    assert values(model(x)).var() == pytest.approx(1, rel=0.1)


def test_dead_layers_are_named_and_not_scaled():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="dead"), layers.Dense(8, name="next")])
    plan = run(model, np.zeros((16, 4), "float32"))
    assert "variance 0" in noted(plan, "dead")
    kernel = values(model.layers[0].kernel)
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(4), atol=1e-5)
    assert all(np.isfinite(values(weight)).all() for weight in model.weights)


def test_a_constant_is_not_amplified():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, name="dead")])
    plan = run(model, np.repeat(np.float32([[1], [1 + 2**-23]]), 32, 0) * np.ones((1, 4), "float32"))
    assert "variance 0" in noted(plan, "dead")
    assert np.abs(values(model.layers[0].kernel)).max() <= 1


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_data_that_are_not_finite(bad):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8)])
    x = normal(16, 4)
    x[3, 1] = bad
    with pytest.raises(ValueError, match=r"x: got NaN or infinity in 1 of 16 examples.*number 3"):
        run(model, x)


def test_signals_that_are_not_finite_name_the_layer():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8), layers.Lambda(ops.log), layers.Dense(8, name="after")]
    )
    with pytest.raises(ValueError, match="pre-activations of layer 'after' are not finite"):
        run(model, normal(16, 4), initializer=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_variance": 0}, "target_variance: got 0, expected a finite number above 0"),
        ({"tolerance": -1}, "tolerance: got -1, expected a finite number above 0"),
        ({"batches": 0}, "batches: got 0, expected a positive integer"),
        ({"batch_size": 2.0}, "batch_size: got 2.0, expected a positive integer"),
        ({"batches": 3, "batch_size": 8}, "got 3 and 8, expected at most the data's 16 examples"),
    ],
)
def test_options_that_do_not_fit(options, message):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8)])
    with pytest.raises(ValueError, match=message):
        run(model, normal(16, 4), **options)


class Normalized(layers.Layer):
    """It divides its kernel by the kernel's root mean square, so that its scale does not matter."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 8), name="kernel")

    def call(self, x):
        return ops.matmul(x, self.kernel / ops.sqrt(ops.mean(ops.square(self.kernel))))


def test_what_scaling_does_not_help_is_left_and_named():
    inputs = keras.Input((6, 8))
    hidden = Normalized(name="normalized")(inputs)
    outputs = layers.AdditiveAttention(name="attention")([hidden, hidden])
    model = keras.Model(inputs, outputs)
    x = normal(32, 6, 8)
    plan = run(model, x)
    # The kernel is orthogonal: divided by its root mean square, it makes lengths the square root of 8 as long.
    said = re.search(
        r"not scaled: no factor was found that brings the variance to the target \((.*)\)", noted(plan, "normalized")
    )
    assert float(said[1]) == pytest.approx(8 * np.var(x), rel=0.01)
    assert "attention score kernel; not scaled" in noted(plan, "attention")
    kernel = values(model.layers[1].kernel)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(8), atol=1e-5)


class Block(layers.Layer):
    """Kernels multiplied in its own `call`, around layers inside it, and a stack of experts."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner, self.norm = layers.Dense(32, "relu", name="inner"), layers.LayerNormalization(name="norm")

    def build(self, shape):
        self.a = self.add_weight(shape=(shape[-1], 64), name="a")
        self.b = self.add_weight(shape=(shape[-1], 32), name="b")
        self.experts = self.add_weight(shape=(4, shape[-1], 32), name="experts")
        self.norm.build(shape)
        self.inner.build((None, 64))

    def call(self, x):
        self.first = ops.matmul(self.norm(x), self.a)
        self.second = ops.matmul(self.inner(ops.relu(self.first)), ops.transpose(self.b))
        self.third = ops.einsum("bi,eio->beo", self.second, self.experts)
        return x + ops.reshape(ops.mean(self.third, axis=1), (ops.shape(x)[0], -1))


class Outer(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.block = Block(name="block")

    def build(self, shape):
        self.block.build(shape)
        self.kernel = self.add_weight(shape=(shape[-1], 16), name="kernel")

    def call(self, x):
        return ops.matmul(self.block(x), self.kernel)


def test_kernels_that_a_layer_multiplies_in_its_own_call():
    inputs = keras.Input((32,))
    hidden = Outer(name="outer")(layers.Dense(32, name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="head")(hidden))
    x = normal(256, 32)
    run(model, x)
    outer = model.get_layer("outer")
    made = outer(model.get_layer("first")(x))  # not compiled: `call` keeps numbers
    block = outer.block
    for z in (block.first, block.second, block.third, made, model(x)):
        assert values(z).var() == pytest.approx(1, rel=EXACT)


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="ReversibleEmbedding came after Keras 3.3")
def test_an_output_kernel_beside_a_table_is_scaled_where_it_is_used():
    table = layers.ReversibleEmbedding(50, 16, tie_weights=False, name="table")
    tokens = keras.Input((12,), dtype="int32")
    hidden = layers.Dense(16, "relu")(layers.LayerNormalization()(table(tokens)))
    model = keras.Model(tokens, table(hidden, reverse=True))
    x = np.random.default_rng(0).integers(0, 50, (64, 12))
    report = initialize(model, "lsuv", x, seed=0)
    assert "looked up" in report.skipped["table/embeddings"]
    assert "table/reverse_embeddings" not in report.skipped
    assert values(model(x)).var() == pytest.approx(1, rel=EXACT)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential([keras.Input((32,)), layers.Dense(32, "tanh"), layers.Dense(32, dtype="float32")])
    finally:
        keras.config.set_dtype_policy("float32")
    x = normal(512, 32)
    run(model, x)
    z = x @ values(model.layers[0].kernel)
    # bfloat16 has 8 bits: a relative error of up to 2^-9 each in input, kernel and output, mostly averaged out.
    assert z.var() == pytest.approx(1, rel=EXACT)
    # The weights themselves are not rounded: they stand in a fixed ratio to an orthogonal matrix.
    kernel = values(model.layers[0].kernel)
    gram = kernel.T @ kernel
    np.testing.assert_allclose(gram / gram[0, 0], np.eye(32), atol=1e-5)


def test_only_the_chosen_weights_change():
    model = convolutions()
    chosen = {path: layer for path, layer in weighted_layers(model).items() if path in ("conv", "head")}
    before = {weight.path: values(weight) for weight in model.weights}
    lsuv(Plan(model, chosen, normal(32, 12, 12, 8), None, 0))
    changed = {path for path, old in before.items() if not np.array_equal(old, values(_weight(model, path)))}
    assert changed == {"conv/kernel", "head/kernel"}


def _weight(model, path):
    return next(weight for weight in model.weights if weight.path == path)


def test_by_name_and_nothing_happens_on_failure():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Lambda(ops.log), layers.Dense(8)])
    before = [values(weight) for weight in model.weights]
    with pytest.raises(ValueError, match="not finite"):
        initialize(model, "lsuv", normal(16, 4))
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(values(weight), old)
    with pytest.raises(ValueError, match="target_variance"):
        initialize(model, "lsuv", normal(16, 4), target=2)
