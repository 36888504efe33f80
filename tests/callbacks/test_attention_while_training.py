"""Statistics of attention in LayerStatsCallback: training stays the same to the last bit."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initkit.callbacks import LayerStatsCallback

TOKENS = np.random.default_rng(0).integers(1, 12, (32, 7)).astype("int32")


def train(*callbacks, causal=True):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(12, 8)(tokens)
    attention = layers.MultiHeadAttention(2, 4, dropout=0.1, name="attention")
    x = layers.Add()([x, attention(x, x, use_causal_mask=causal)])
    model = keras.Model(tokens, layers.Dense(12)(layers.Dropout(0.2)(x)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(TOKENS[:, :-1], TOKENS[:, 1:], batch_size=8, epochs=1, verbose=0, callbacks=list(callbacks))
    return history.history["loss"], [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def test_training_is_the_same_and_reports_hold_attention():
    plain_loss, plain = train()
    stats = LayerStatsCallback(None, "batch", statistics=["attention_entropy", "attention_logit"], on_finding="ignore")
    loss, weights = train(stats)
    assert loss == plain_loss
    for one, two in zip(plain, weights, strict=True):
        np.testing.assert_array_equal(one, two)
    assert len(stats.reports) == 4
    for report in stats.reports:
        (row,) = report.attention
        assert row.is_causal
        assert report.statistic("attention_entropy") == {"attention": pytest.approx(np.mean(row.entropy))}
        assert report.scalars(["attention_logit"]) == {"attention_logit/attention": max(row.largest_logit)}
    assert len({report.attention[0].entropy for report in stats.reports}) == 4


@pytest.mark.one_backend
def test_findings_come_too_and_nobody_else_pays():
    stats = LayerStatsCallback(None, "batch", statistics=["attention_future"], on_finding=lambda finding: None)
    train(stats, causal=False)
    assert "future_attended" in [finding.kind for finding in stats.findings]
    usual = LayerStatsCallback(None, on_finding="ignore")
    train(usual)
    assert usual.reports[0].attention == ()
