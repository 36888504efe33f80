"""What a probe reads of attention, against Keras' own weights and closed forms."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit import probe
from keras_initkit.capture import _attention_reading

HEADS, SIZE, WORDS, LENGTH = 2, 4, 11, 6
TOKENS = np.random.default_rng(0).integers(1, WORDS, (6, LENGTH)).astype("int32")


class Written(layers.Layer):
    """Attention by hand; its kernels are drawn from seeds, as those of `attend` are."""

    def __init__(self, causal=True, einsum=False, axis=-1, **options):
        super().__init__(**options)
        self.causal, self.einsum, self.axis = causal, einsum, axis
        names = enumerate(("query", "key", "value"))
        self.parts = [layers.Dense(HEADS * SIZE, kernel_initializer=drawn(i), name=name) for i, name in names]

    def build(self, shape):
        for part in self.parts:
            part.build(shape)

    def call(self, x):
        n = x.shape[1]
        q, k, v = (ops.reshape(part(x), (-1, n, HEADS, SIZE)) for part in self.parts)
        mask = np.tril(np.ones((n, n), bool)) if self.causal else np.ones((n, n), bool)
        if self.einsum:
            scores = ops.einsum("bshd,bthd->bhts", k, q) * SIZE**-0.5
            weights = ops.softmax(ops.where(mask, scores, -1e9), axis=self.axis)
            return ops.reshape(ops.einsum("bhts,bshd->bthd", weights, v), (-1, n, HEADS * SIZE))
        q, k, v = (ops.transpose(each, (0, 2, 1, 3)) for each in (q, k, v))
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) * SIZE**-0.5
        scores = scores + ops.cast(np.where(mask, 0.0, -1e9), scores.dtype)
        powers = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True))
        mixed = ops.matmul(powers / ops.sum(powers, axis=-1, keepdims=True), v)
        return ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, n, HEADS * SIZE))


class Table(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer="zeros", name="table")

    def call(self, x):
        return x + self.table


def drawn(seed):
    return keras.initializers.RandomNormal(stddev=0.7, seed=seed)


def model_of(attention, positions=False, head=3):
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = layers.Embedding(WORDS, HEADS * SIZE, embeddings_initializer=drawn(9), name="lookup")(tokens)
    x = Table(name="table")(x) if positions else x
    x = layers.Add(name="sum")([x, attention(x)])
    return keras.Model(tokens, layers.Dense(head, name="head")(x), name="model")


def entropy(weights):
    p = np.asarray(weights, "float64")
    each = -(p * np.log(np.where(p > 0, p, 1))).sum(-1)
    return each[:, :, 1:].mean(axis=(0, 2))  # of a causal mask, whose first query has one key


@pytest.mark.parametrize("dropout", [0.0, 0.2])  # without dropout some backends and versions fuse it
def test_keras_attention(dropout):
    layer = layers.MultiHeadAttention(HEADS, SIZE, dropout=dropout, kernel_initializer=drawn(3), name="attention")
    model = model_of(lambda x: layer(x, x, use_causal_mask=True))
    report = probe(model, TOKENS, gradients=False)
    (row,) = report.attention
    x = model.get_layer("lookup")(TOKENS)
    _, weights = layer(x, x, use_causal_mask=True, return_attention_scores=True)
    weights = keras.ops.convert_to_numpy(weights)
    np.testing.assert_allclose(row.entropy, entropy(weights), rtol=1e-4)
    assert row.uniform_entropy == pytest.approx(np.log(np.arange(2, LENGTH + 1)).mean())
    assert (row.layer, row.call, row.queries, row.keys, row.heads) == ("attention", 0, LENGTH, LENGTH, HEADS)
    assert (row.future, row.future_allowed, row.past_allowed) == (0.0, 0.0, 1.0)
    assert row.is_causal
    assert row.queries_from == row.keys_from == ("tokens",)
    assert row.sum_error < 1e-6
    assert row.padding is None


@pytest.mark.one_backend
def test_written_by_hand():
    rows = [
        probe(model_of(Written(einsum=einsum, name="own")), TOKENS, gradients=False).attention[0]
        for einsum in (False, True)
    ]
    np.testing.assert_allclose(rows[0].entropy, rows[1].entropy, rtol=1e-4)
    np.testing.assert_allclose(rows[0].largest_logit, rows[1].largest_logit, rtol=1e-4)
    assert [row.layer for row in rows] == ["own", "own"]
    assert all(row.is_causal for row in rows)
    (wrong,) = probe(model_of(Written(einsum=True, axis=-2, name="own")), TOKENS, gradients=False).attention
    assert wrong.sum_error > 0.1


def test_padding_order_and_residual_sums():
    tokens = TOKENS.copy()
    tokens[::2, 4:] = 0
    ids = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = layers.Embedding(WORDS, HEADS * SIZE, mask_zero=True, embeddings_initializer=drawn(9))(ids)
    masked = layers.MultiHeadAttention(HEADS, SIZE, name="masked")(x, x)
    x = layers.Add(name="sum")([ops.reshape(x, (-1, LENGTH, HEADS * SIZE)), masked])
    x = layers.Add(name="other_sum")([x, layers.MultiHeadAttention(HEADS, SIZE, name="open")(x, x)])
    model = keras.Model(ids, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    before = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    report = probe(model, tokens, gradients=False)
    masked, unmasked = report.attention
    assert masked.padding == 0.0
    assert masked.padded_keys == pytest.approx(2 / LENGTH)  # of the examples that have some
    assert unmasked.padding == pytest.approx(unmasked.padded_keys, rel=0.5)
    assert [row.layer for row in report.residuals] == ["sum", "other_sum"]
    assert all(-1 <= row.cosine <= 1 and row.ratio > 0 for row in report.residuals)
    (order,) = report.order
    assert order.permuted < 1e-4
    assert order.future is None
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    calls = [row.tap.call for row in report.rows if row.tap.call is not None]
    assert set(calls) == {0}  # the passes that read attention add no rows


@pytest.mark.one_backend
@pytest.mark.parametrize(("causal", "positions"), [(True, False), (False, True), (False, False)])
def test_what_order_does(causal, positions):
    model = model_of(Written(causal=causal, name="own"), positions, head=WORDS)
    report = probe(model, TOKENS, gradients=False)
    (order,) = report.order
    assert (order.permuted < 1e-4) == (not causal and not positions)
    assert (order.future < 1e-4) == causal
    assert order.past > 1e-3
    assert order.next_tokens is None


@pytest.mark.one_backend
def test_labels_that_are_the_next_tokens():
    model = model_of(Written(name="own"), head=WORDS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    moved = np.concatenate([TOKENS[:, 1:], TOKENS[:, :1]], axis=1)
    for labels, expected in ((moved, True), (TOKENS, False)):
        assert probe(model, TOKENS, labels, loss=loss).order[0].next_tokens is expected


@pytest.mark.one_backend
def test_a_mask_of_numbers_before_fused_attention():
    x = inputs = keras.Input((LENGTH, 3), name="series")
    x = layers.Masking()(x)
    x = layers.MultiHeadAttention(HEADS, SIZE)(x, x)
    series = np.random.default_rng(0).standard_normal((4, LENGTH, 3)).astype("float32")
    series[::2, 4:] = 0
    (row,) = probe(keras.Model(inputs, x), series, gradients=False).attention
    assert row.padding == 0
    assert row.padded_keys == pytest.approx(1 / 3)  # of the examples that have some


def test_a_model_without_attention_has_no_such_rows():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(2, "softmax")])
    report = probe(model, np.ones((2, 4)))
    assert report.attention == report.residuals == report.order == ()
    assert "attention" not in report.to_dict()
    assert "Attention" not in str(report)


@pytest.mark.one_backend
def test_an_attention_that_cannot_be_read_is_named_with_the_reason(monkeypatch):
    def refuse(*_):
        raise RuntimeError("these weights have three axes\nand a second line")

    first, second = (layers.MultiHeadAttention(HEADS, SIZE, dropout=0.2, name=name) for name in ("one", "two"))
    model = model_of(lambda x: second(first(x, x), x))
    composed = _attention_reading._composed
    monkeypatch.setattr(
        _attention_reading, "_composed", lambda attention, *rest: (refuse if attention.path == "one" else composed)(
            attention, *rest)
    )  # fmt: skip
    report = probe(model, TOKENS, gradients=False)
    assert [row.layer for row in report.attention] == ["two"]
    (note,) = (note for note in report.notes if note.startswith("The attention"))
    assert note == "The attention one was not read (RuntimeError: these weights have three axes)."


@pytest.mark.one_backend
def test_a_batch_of_fixed_size_is_read_as_it_is():
    ids = keras.Input(batch_shape=TOKENS.shape, dtype="int32")
    x = layers.Embedding(WORDS, HEADS * SIZE, embeddings_initializer=drawn(9))(ids)
    model = keras.Model(ids, layers.Dense(3)(layers.MultiHeadAttention(HEADS, SIZE, name="attention")(x, x)))
    report = probe(model, TOKENS, gradients=False)
    assert [row.layer for row in report.attention] == ["attention"]
    assert len(report.order) == 1
    assert not [note for note in report.notes if "was not read" in note]


class OnlyInABatch(layers.Layer):
    def call(self, x):
        if x.shape[0] not in (None, len(TOKENS)):
            raise ValueError("another number of examples")
        return x

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.one_backend
def test_what_the_pass_of_attention_cannot_run_is_named_once():
    attention = layers.MultiHeadAttention(HEADS, SIZE, dropout=0.2, name="attention")
    model = model_of(lambda x: attention(OnlyInABatch(name="picky")(x), x))
    report = probe(model, TOKENS, gradients=False)
    assert not report.attention
    assert [note for note in report.notes if note.startswith("The")] == [
        "The pass that reads attention could not run picky (ValueError: another number of examples).",
        "The attention attention was not read (what it reads was not computed).",
    ]
