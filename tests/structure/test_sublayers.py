import keras
from keras import layers

from keras_initkit.structure import sublayers, weighted_layers
from keras_initkit.structure._sublayers import walk_layers


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


def test_a_walk_meets_each_layer_once_and_before_its_parts():
    block = Block()
    inner = layers.TimeDistributed(block, name="each")
    model = keras.Sequential([inner, layers.LSTM(2, name="lstm"), inner], name="outer")
    parts = ["each/block/first", "each/block/second", "each/block/third"]
    block.name = "block"
    assert [path for path, _ in walk_layers(model)] == ["", "each", "each/block", *parts, "lstm", "lstm/lstm_cell"]
    assert [path for path, _ in walk_layers(model, into_loops=False)] == ["", "each", "lstm"]
    assert sublayers(inner, into_loops=False) == []


def test_parts_of_one_name_are_told_apart_by_their_own_name_and_not_their_layers():
    def network():
        inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="a")], name="inner")
        return keras.Sequential([keras.Input((8,)), inner, keras.layers.Dense(8, name="b")], name="net")

    class Three(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.net_1 = (
                network(),
                network(),
                keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="c")], name="net_1"),
            )
            self.three = network()

    paths = list(weighted_layers(Three()))
    assert paths == ["net/inner/a", "net/b", "net_2/inner/a", "net_2/b", "net_1/c", "net_3/inner/a", "net_3/b"]
