"""The one rule for what weights and kernels a layer owns."""

import keras

from keras_initkit.structure._kernels import kernels_by_layer
from keras_initkit.structure._layer_paths import held_weights
from keras_initkit.structure._weights import main_weights, own_weights

L = keras.layers


class Scaled(L.Layer):
    """A layer with a scale beside a Dense layer."""

    def __init__(self):
        super().__init__(name="scaled")
        self.dense = L.Dense(2, name="dense")

    def build(self, shape):
        self.dense.build(shape)
        self.scale = self.add_weight(shape=(2,), name="scale")

    def call(self, x):
        return self.scale * self.dense(x)


def model():
    layers = [L.Embedding(7, 4, name="words"), L.LSTM(3, name="lstm"), Scaled(), L.BatchNormalization(name="norm")]
    return keras.Sequential([keras.Input((5,)), *layers])


def names(weights):
    return [weight.name for weight in weights]


def test_a_composite_owns_what_its_parts_do_not():
    scaled, lstm = model().layers[2], model().layers[1]
    assert names(own_weights(scaled)) == names(main_weights(scaled)) == ["scale"]
    assert names(own_weights(lstm)) == ["kernel", "recurrent_kernel", "bias"]
    assert own_weights(lstm, into_loops=True) == []


def test_the_main_weights_are_matrices_or_else_what_trains():
    words, lstm, _, norm = model().layers
    assert names(main_weights(words)) == ["embeddings"]
    assert names(main_weights(lstm)) == ["kernel", "recurrent_kernel"]
    assert names(main_weights(norm)) == ["gamma", "beta"]
    norm.trainable = False
    assert main_weights(norm) == []


def test_each_weight_and_kernel_is_held_once_by_the_innermost_layer_with_a_path():
    built = model()
    assert [(path, weight.name) for path, _, weight in held_weights(built)] == [
        ("words", "embeddings"),
        *[("lstm", name) for name in ("kernel", "recurrent_kernel", "bias")],
        ("scaled", "scale"),
        *[("scaled/dense", name) for name in ("kernel", "bias")],
        *[("norm", name) for name in ("gamma", "beta", "moving_mean", "moving_variance")],
    ]
    found = {path: names(kernel.variable for kernel in held) for path, held in kernels_by_layer(built).items()}
    assert found == {"words": ["embeddings"], "lstm": ["kernel", "recurrent_kernel"], "scaled/dense": ["kernel"]}
