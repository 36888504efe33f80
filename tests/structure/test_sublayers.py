"""The one private name of Keras that `sublayers` reads still holds what it should."""

import keras
from keras import layers

from keras_initkit.structure import sublayers


def names(layer):
    return [sublayer.name for sublayer in sublayers(layer)]


class Block(layers.Layer):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(2, name="first")
        self.stack = [layers.Dense(2, name="second"), {"key": layers.Dense(2, name="third")}]
        self.again = self.first


def test_attributes_lists_and_dictionaries_of_a_layer():
    assert names(Block()) == ["first", "second", "third"]


def test_leaf():
    assert sublayers(layers.Dense(2)) == []


def test_attention():
    layer = layers.MultiHeadAttention(2, 3)
    layer.build((None, 4, 6), (None, 4, 6))
    assert {"query", "key", "value", "attention_output"} <= set(names(layer))


def test_wrappers_and_cells():
    layer = layers.Bidirectional(layers.RNN([layers.GRUCell(2, name="a"), layers.GRUCell(2, name="b")], name="r"))
    assert names(layer) == ["forward_r", "backward_r"]
    (stacked,) = sublayers(sublayers(layer)[0])
    assert names(stacked) == ["a", "b"]


def test_models_agree_with_their_public_list():
    inputs = keras.Input((2,))
    shared = layers.Dense(2, name="shared")
    functional = keras.Model(inputs, shared(shared(inputs)))
    assert sublayers(functional) == functional.layers
    sequential = keras.Sequential([keras.Input((2,)), functional, layers.ReLU()])
    assert [layer for layer in sublayers(sequential) if not isinstance(layer, layers.InputLayer)] == sequential.layers
