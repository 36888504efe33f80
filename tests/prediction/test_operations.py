"""Blocks written in operations, that no table of layers knows, against measured networks drawn anew for each seed."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_initkit import probe
from keras_initkit.prediction import InputMoments, predict
from keras_initkit.statistics._tap import Tap

L = keras.layers

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="one backend is enough for a prediction"
)


class Block(L.Layer):
    """A layer of its own: sublayers in `parts`, weights by `weight`, and a `call` that is given."""

    def __init__(self, run, weights=None, **parts):
        super().__init__(name="block")
        self.run, self.shapes = run, weights or {}
        self.dense = [L.Dense(units, use_bias=False, name=name, kernel_initializer="lecun_normal")
                      for name, units in parts.items()]  # fmt: skip

    def build(self, shape):
        for dense in self.dense:
            dense.build(shape)
        self.own = {name: self.add_weight(shape=size, initializer=initializer, name=name)
                    for name, (size, initializer) in self.shapes.items()}  # fmt: skip

    def call(self, x):
        return self.run(x, *self.dense, **self.own)


def rms_norm(x, gain):
    return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * gain


def layer_norm(x):
    x = x - ops.mean(x, axis=-1, keepdims=True)
    return x / ops.sqrt(ops.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def swiglu(x, gate, value):
    return ops.silu(gate(x)) * value(x)


def rotated(x):
    angles = np.arange(16)[:, None] / 100.0 ** (np.arange(64) / 64)
    cosine, sine = (ops.convert_to_tensor(np.tile(f(angles), 2).astype("float32")) for f in (np.cos, np.sin))
    first, second = ops.split(x, 2, axis=-1)
    return x * cosine + ops.concatenate([-second, first], axis=-1) * sine


def attention(x, query, key, value, mask=None):
    def heads(y):
        return ops.transpose(ops.reshape(y, (-1, 16, 4, 32)), (0, 2, 1, 3))

    scores = ops.matmul(heads(query(x)), ops.swapaxes(heads(key(x)), -1, -2)) / 32**0.5
    if mask is not None:
        scores = scores + (1 - mask) * -1e9
    y = ops.matmul(ops.softmax(scores), heads(value(x)))
    return ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, 16, 128))


def causal_attention(x, query, key, value):
    return attention(x, query, key, value, np.tril(np.ones((16, 16), "float32")))


def experts(x, kernel):
    return ops.mean(ops.einsum("btd,edf->btef", x, kernel), axis=2)


def squeezed(x, narrow, wide):
    gate = ops.sigmoid(wide(ops.relu(narrow(ops.mean(x, axis=1, keepdims=True)))))
    return x * gate


def positions(x, table):
    return x + ops.expand_dims(ops.take(table, ops.arange(16), axis=0), 0)


def with_token(x, token):
    return ops.concatenate([ops.repeat(token, ops.shape(x)[0], axis=0), x], axis=1)[:, 1:]


def tied(x, table):
    return ops.matmul(x, ops.transpose(table))


NORMAL = keras.initializers.RandomNormal(0.0, 0.5)
BLOCKS = {
    "rms_norm": lambda: Block(rms_norm, {"gain": ((128,), "ones")}),
    "layer_norm": lambda: Block(layer_norm),
    "swiglu": lambda: Block(swiglu, gate=256, value=256),
    "rotated": lambda: Block(rotated),
    "attention": lambda: Block(attention, query=128, key=128, value=128),
    "causal_attention": lambda: Block(causal_attention, query=128, key=128, value=128),
    "experts": lambda: Block(experts, {"kernel": ((4, 128, 64), "lecun_normal")}),
    "squeezed": lambda: Block(squeezed, narrow=128, wide=128),
    "positions": lambda: Block(positions, {"table": ((16, 128), NORMAL)}),
    "with_token": lambda: Block(with_token, {"token": ((1, 1, 128), NORMAL)}),
    "tied": lambda: Block(tied, {"table": ((64, 128), NORMAL)}),
}


def chain(block):
    """A dense layer before, whose gradient is what comes back through the block."""
    inputs = keras.Input((16, 128))
    x = L.Dense(128, name="before", kernel_initializer="lecun_normal")(inputs)
    return keras.Model(inputs, block(x))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_of_operations_is_predicted_forward_and_backward(name):
    ratios = []
    for seed in range(4):
        keras.utils.set_random_seed(seed)
        model = chain(BLOCKS[name]())
        x = np.random.default_rng(seed).normal(size=(16, 16, 128)).astype("float32")
        report = probe(model, x, seed=seed)
        assert not [note for note in report.notes if note.startswith("No prediction")]
        rows = {row.tap: row for row in report.rows}
        pair = rows[Tap("output", "block", 0)], rows[Tap("output_gradient", "before", 0)]
        ratios.append([row.moments.variance / row.predicted.variance for row in pair])
    mean, error = np.mean(ratios, axis=0), np.std(ratios, axis=0, ddof=1) / 2
    assert np.all(np.abs(mean - 1) < 4 * error + 0.05), (mean, error)


def test_closed_forms_of_even_attention():
    """Scores of 0: 16 even weights, so that independent values are averaged to a sixteenth, and so are gradients."""

    def even(x, value):
        scores = ops.matmul(x * 0.0, ops.transpose(value(x), (0, 2, 1)))
        return ops.matmul(ops.softmax(scores), value(x))

    prediction = predict(chain(Block(even, value=128)))
    variance = prediction[Tap("output", "block/value", 0)].variance
    assert prediction[Tap("output", "block", 0)].variance == pytest.approx(variance / 16, rel=1e-9)


def test_a_gain_that_is_not_one_and_a_mean_that_is_taken_out():
    gain = keras.initializers.Constant(3.0)
    prediction = predict(chain(Block(rms_norm, {"gain": ((128,), gain)})))
    assert prediction[Tap("output", "block", 0)].variance == pytest.approx(9.0, rel=1e-5)
    shifted = predict(chain(Block(lambda x: layer_norm(x + 5.0))))
    assert shifted[Tap("output", "block", 0)] == pytest.approx((0.0, 1.0), abs=1e-5)


def test_rotation_keeps_the_second_moment():
    prediction = predict(chain(Block(rotated)))
    before, after = (prediction[Tap("output", name, 0)].variance for name in ("before", "block"))
    assert after == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda x: x * ops.cos(x), "no rule for Cos"),
        (lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))), "correlated"),
        (lambda x: x / (ops.abs(x) + 1.0), "divides by a signal"),
        (lambda x: ops.reshape(x, (-1, 128)), "joins examples"),
        (lambda x: ops.maximum(x, x * 2.0), "extreme of several branches"),
    ],
)
def test_what_no_rule_holds_for_is_told_once_for_the_block(run, reason):
    prediction = predict(chain(Block(run)))
    assert Tap("output", "block", 0) not in prediction
    assert list(prediction.unpredicted) == ["block"]
    assert reason in prediction.unpredicted["block"]


def test_a_multi_head_attention_with_padding_is_predicted():
    """The mask comes from data: half of the keys are switched off."""
    ratios = []
    for seed in range(4):
        keras.utils.set_random_seed(seed)
        inputs, mask = keras.Input((16, 128)), keras.Input((16,), dtype="int32")
        y = L.MultiHeadAttention(4, 32, name="attention")(inputs, inputs, attention_mask=mask[:, None, :])
        model = keras.Model([inputs, mask], y)
        random = np.random.default_rng(seed)
        data = [
            random.normal(size=(32, 16, 128)).astype("float32"),
            (np.arange(16) < 8).astype("int32") * np.ones((32, 1), "int32"),
        ]
        report = probe(model, data, seed=seed)
        row = next(row for row in report.rows if row.tap.layer == "attention/attention_output")
        ratios.append(row.moments.variance / row.predicted.variance)
        moments = [InputMoments.from_array(each) for each in data]
        unmasked = predict(model, [moments[0], (1.0, 0.0)])[row.tap].variance
        assert row.predicted.variance > 1.5 * unmasked  # of eight keys, not sixteen
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_rows_of_a_table_are_counted_as_often_as_they_are_read():
    table = np.concatenate([np.full((1, 64), 2.0), np.zeros((9, 64))])
    inputs = keras.Input((4,), dtype="int32")
    layer = L.Embedding(10, 64, name="table")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([table])
    zeros = InputMoments.from_array(np.zeros((8, 4), "int32"))
    assert predict(model, zeros)[Tap("output", "table", 0)] == (2.0, 0.0)
    assert predict(model)[Tap("output", "table", 0)] == pytest.approx((0.2, 0.36))


def test_a_head_that_reads_one_position_leaves_no_gradient_at_two():
    """Behind a class token the gradient is at one position, so that two positions have none in common."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((12,), dtype="int32")
    hidden = keras.layers.Embedding(50, 64)(tokens)
    for _ in range(2):
        normal = keras.layers.LayerNormalization()(hidden)
        hidden = hidden + keras.layers.MultiHeadAttention(4, 16)(normal, normal)
        hidden = hidden + keras.layers.Dense(64)(
            keras.layers.Dense(128, "gelu")(keras.layers.LayerNormalization()(hidden))
        )
    model = keras.Model(tokens, keras.layers.Dense(10)(keras.layers.LayerNormalization(name="last")(hidden)[:, 0]))
    report = probe(model, np.random.default_rng(0).integers(0, 50, (64, 12)))
    gradients = [row for row in report.rows if row.tap.kind == "output_gradient" and row.predicted is not None]
    assert len(gradients) > 12
    for row in gradients:
        if not row.tap.layer.endswith(("query", "key")):  # of scores that hardly differ: few heads scatter
            # Ten logits and widths of 64: over draws of the weights the logarithm has a standard deviation of 0.24 at
            # the embedding, the most. To spread the gradient over all positions would be off by 12, at least.
            assert abs(np.log(row.moments.variance / row.predicted.variance)) < 4 * 0.24, row.tap
