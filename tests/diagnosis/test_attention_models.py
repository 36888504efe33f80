"""Faulty transformers and their healthy twins: each kind is found in the one, and nothing in the other."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit import diagnose

pytestmark = pytest.mark.one_backend
WORDS, UNITS, LENGTH = 20, 16, 9
TOKENS = np.random.default_rng(0).integers(1, WORDS, (8, LENGTH + 1)).astype("int32")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
KINDS = {
    *("future_attended", "padding_attended", "uneven_attention", "collapsed_attention", "uniform_attention"),
    *("query_key_frozen", "residual_lost", "positions_lost"),
}


class Table(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer="zeros", name="table")
        self.supports_masking = True

    def call(self, x):
        return x + self.table


def attend(name, **options):
    return layers.MultiHeadAttention(2, UNITS // 2, name=name, **options)


def language_model(fault):
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = layers.Embedding(WORDS, UNITS)(tokens)
    for number in range(3):
        here = number == 1
        y = layers.LayerNormalization()(x)
        attention = attend(f"attention_{number}")
        y = attention(y, y, use_causal_mask=not (fault == "mask" and here))
        if fault == "frozen" and here:
            attention.query_dense.trainable = attention.key_dense.trainable = False
        x = y if fault == "attention" and here else layers.Add()([x, y])
        y = layers.Dense(2 * UNITS, "relu", name=f"wide_{number}")(layers.LayerNormalization()(x))
        y = layers.Dense(UNITS, name=f"narrow_{number}")(y)
        x = y if fault == "feed_forward" and here else layers.Add()([x, y])
    model = keras.Model(tokens, layers.Dense(WORDS, name="head")(x))
    return model, TOKENS[:, :-1], TOKENS[:, 1:]


def classifier(fault):
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = layers.Embedding(WORDS, UNITS, mask_zero=True)(tokens)
    x = x if fault == "positions" else Table()(x)
    x = layers.Lambda(lambda x: x * 1.0)(x) if fault == "padding" else x
    scale = 4.0 if fault == "collapsed" else 0.25
    kernel = keras.initializers.RandomNormal(stddev=scale, seed=1)
    x = layers.Add()([x, attend("attention", kernel_initializer=kernel)(layers.LayerNormalization()(x), x)])
    model = keras.Model(tokens, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(x)))
    padded = TOKENS[:, :LENGTH].copy()
    padded[::2, 6:] = 0
    return model, padded, TOKENS[:, 0] % 3


def found(model, x, y):
    keras.utils.set_random_seed(0)
    return [(each.kind, each.layer) for each in diagnose(model, x, y, loss=LOSS) if each.kind in KINDS]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("", []),
        ("mask", [("future_attended", "attention_1")]),
        ("frozen", [("query_key_frozen", "attention_1")]),
        ("attention", [("residual_lost", "attention_1")]),
        ("feed_forward", [("residual_lost", "wide_1")]),
    ],
)
def test_language_models(fault, expected):
    keras.utils.set_random_seed(0)
    assert found(*language_model(fault)) == expected


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("", []),
        ("positions", [("positions_lost", "attention")]),
        ("padding", [("padding_attended", "attention")]),
        ("collapsed", [("collapsed_attention", "attention")]),
    ],
)
def test_classifiers(fault, expected):
    keras.utils.set_random_seed(0)
    assert found(*classifier(fault)) == expected


def test_kernels_of_zeros_keep_each_other_where_they_are():
    model, x, y = language_model("")
    layer = model.get_layer("attention_2")
    for part in (layer.query_dense, layer.key_dense):
        part.kernel.assign(ops.zeros(part.kernel.shape))
    assert found(model, x, y) == [("query_key_frozen", "attention_2")]


def test_sets_and_pooling_by_a_learned_query_are_left_alone():
    class Seed(layers.Layer):
        def build(self, shape):
            self.seed = self.add_weight(shape=(1, 1, UNITS), name="seed")
            self.attention = attend("pooling")
            self.attention.build((None, 1, UNITS), shape)

        def call(self, x):
            return self.attention(ops.repeat(self.seed, ops.shape(x)[0], axis=0), x)

    x = inputs = keras.Input((LENGTH, 3))
    x = layers.Dense(UNITS)(x)
    for number in range(2):
        x = layers.Add()([x, attend(f"attention_{number}")(x, x)])
        x = layers.Add()([x, layers.Dense(UNITS)(layers.Dense(2 * UNITS, "relu")(x))])
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(Seed()(x))))
    series = np.random.default_rng(0).standard_normal((8, LENGTH, 3)).astype("float32")
    assert found(model, series, TOKENS[:, 0] % 3) == []
