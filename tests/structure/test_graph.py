import keras
import pytest

from keras_initkit.structure import weighted_layers

L = keras.layers


def paths(model):
    return list(weighted_layers(model))


def test_sequential_and_functional_models():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="a"), L.ReLU(), L.Dropout(0.1), L.Dense(2, name="b")])
    assert paths(model) == ["a", "b"]
    inputs = keras.Input((4,))
    shared = L.Dense(4, name="shared")
    model = keras.Model(inputs, L.Dense(1, name="out")(shared(shared(inputs))))
    assert paths(model) == ["shared", "out"]


def test_a_path_leads_through_nested_models_without_the_outermost_name():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3, name="dense")], name="inner")
    middle = keras.Sequential([keras.Input((4,)), inner, L.Dense(4, name="dense")], name="middle")
    outer = keras.Sequential([keras.Input((4,)), middle, L.Dense(1, name="dense")], name="outer_17")
    assert paths(outer) == ["middle/inner/dense", "middle/dense", "dense"]


def test_composite_layers_are_taken_apart_recurrent_ones_are_not():
    inputs = keras.Input((5, 8))
    x = L.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    x = L.Bidirectional(L.LSTM(3, name="lstm"), name="both")(x)
    model = keras.Model(inputs, x)
    projections = ["query", "key", "value", "attention_output"]
    assert paths(model) == [*(f"attention/{p}" for p in projections), "both/forward_lstm", "both/backward_lstm"]
    time = keras.Sequential([keras.Input((5, 8)), L.TimeDistributed(L.Dense(2), name="each"), L.GRU(3, name="gru")])
    assert paths(time) == ["each", "gru"]


def test_a_model_with_weights_and_lists_of_layers_of_its_own():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [L.Dense(4, name="block"), L.Dense(4, name="block")]
            self.scale = self.add_weight(shape=(), name="scale")

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return self.scale * x

    model = Subclassed()
    model(keras.ops.ones((1, 4)))
    assert paths(model) == ["model", "block", "block_1"]


@pytest.mark.parametrize("name", ["norm", "words"])
def test_layers_whose_weights_are_no_kernels(name):
    layer = {"norm": L.BatchNormalization(name="norm"), "words": L.Embedding(3, 2, name="words")}[name]
    model = keras.Sequential([keras.Input((4,)), layer])
    assert weighted_layers(model) == {name: layer}
