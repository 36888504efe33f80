"""Of several outputs of a layer, those are read that go on as signals."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit import diagnose
from keras_initkit.capture._probe import probe

X = np.random.default_rng(0).standard_normal((16, 8, 4)).astype("float32")


class Masking(layers.Layer):
    """Attention that makes a mask of large numbers, or takes that of the layer before, and returns it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.out = layers.Dense(4, kernel_initializer="lecun_normal", name="out")

    def call(self, x, mask_before=None):
        mask = mask_before
        if mask is None:
            mask = ops.where(ops.tril(ops.ones((8, 8))) > 0, 0.0, -1e9) * ops.ones_like(x[:, :1, :1])
        return self.out(ops.softmax(x @ ops.transpose(x, (0, 2, 1)) / 2 + mask) @ x), mask


class InDictionary(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.attention = layers.MultiHeadAttention(2, 4)

    def call(self, x):
        hidden, scores = self.attention(x, x, return_attention_scores=True)
        return {"attention_scores": scores, "hidden": 2 * hidden}


def outputs_read(make, x=X):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten(name="flat")(make(inputs))))
    report = probe(model, x)
    assert not [f for f in diagnose(model, x) if f.kind == "exploding_activation"]
    return [tuple(row.tap[1::2]) for row in report.rows if row.tap.kind == "output"]


def masks(x):
    x, mask = Masking(name="first")(x)
    return Masking(name="second")(x, mask)[0]


def unused_states(x):
    return layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")(x)[0]


def states_alone(x):
    _, *states = layers.LSTM(3, return_state=True, name="encoder")(x)
    return layers.LSTM(3, name="decoder")(x, initial_state=states)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (masks, [("first/out", ""), ("second/out", "")]),
        (unused_states, [("lstm", "0")]),
        (states_alone, [("encoder", "0"), ("encoder", "1"), ("encoder", "2"), ("decoder", "")]),
        (lambda x: layers.MultiHeadAttention(2, 4, name="mha")(x, x, return_attention_scores=True)[0], "mha"),
        (lambda x: InDictionary(name="own")(x)["hidden"], "own"),
    ],
)
def test_outputs_that_are_read(make, expected):
    read = outputs_read(make)
    assert read[-2:] == [("flat", ""), ("head", "")]
    if expected == "mha":
        assert [name for path, name in read if path == "mha"] == []  # its projection's output is its own
        assert [name for path, name in read if path == "mha/attention_output"] == [""]
    elif expected == "own":
        assert [name for path, name in read if path == "own"] == ["1"]
    else:
        assert [each for each in read[:-2] if not each[0].endswith("activation")] == expected


def test_outputs_of_the_model_are_signals():
    inputs = keras.Input((8, 4))
    hidden = layers.LSTM(3, return_state=True, name="lstm")(inputs)
    report = probe(keras.Model(inputs, hidden), X)
    assert [row.tap.name for row in report.rows if row.tap[:2] == ("output", "lstm")] == ["0", "1", "2"]
