"""What the trace says of weights of hand-written layers, against closed forms and measured variances."""

import math
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit import initialize
from keras_initkit.schemes.draw._kernel_draw import draw_kernel
from keras_initkit.structure import kernels
from keras_initkit.structure._kernels import WeightRoles

RANDOM = np.random.default_rng(0)


class Own(layers.Layer):
    """Weights `w0`, `w1`, ... of given shapes, and a function of the input and them."""

    def __init__(self, shapes, function, **options):
        super().__init__(**options)
        self.shapes, self.function = shapes, function

    def build(self, shape):
        self.held = [self.add_weight(shape=each, name=f"w{n}") for n, each in enumerate(self.shapes)]

    def call(self, x):
        return self.function(x, *self.held)


def own_model(size, shapes, function, dtype="float32"):
    inputs = keras.Input(size, dtype=dtype)
    return keras.Model(inputs, Own(shapes, function, name="own")(inputs))


def patches(x):
    return ops.reshape(x, (-1, 4, 4, 4, 4, 3))


# Name: size of the input, shape of the weight, function, fans, channels that the output has unit variance over.
PRODUCTS = {
    "matmul": ((64,), (64, 48), lambda x, w: x @ w, (64, 48)),
    "transposed": ((64,), (48, 64), lambda x, w: x @ ops.transpose(w), (64, 48)),
    "experts": ((64,), (8, 64, 48), lambda x, w: ops.einsum("bi,eio->beo", x, w), (64, 48)),
    "experts by matmul": ((1, 1, 64), (8, 64, 48), ops.matmul, (64, 48)),
    "heads": ((64,), (64, 4, 12), lambda x, w: ops.einsum("...i,ihd->...hd", x, w), (64, 48)),
    "a kernel in slices": (
        (64,),
        (64, 3 * 16),
        lambda x, w: ops.concatenate([x @ part for part in ops.split(w, 3, axis=-1)], axis=-1),
        (64, 48),
    ),
    "a kernel for each step": ((64,), (3, 64, 64), lambda x, w: x @ w[0] @ w[1] @ w[2], (64, 64)),
    "reshaped": ((64,), (64 * 48,), lambda x, w: x @ ops.reshape(w, (64, 48)), (64, 48)),
    "merged": ((8, 8), (8, 8, 48), lambda x, w: ops.reshape(x, (-1, 64)) @ ops.reshape(w, (64, 48)), (64, 48)),
    "tensordot": ((8, 8), (8, 8, 48), lambda x, w: ops.tensordot(x, w, axes=[[2, 1], [1, 0]]), (64, 48)),
    "dot": ((64,), (64, 48), ops.dot, (64, 48)),
    "scores of a vector": ((9, 1024), (1024,), ops.dot, (1024, 1)),
    "bilinear": ((2, 8), (8, 8, 48), lambda x, w: ops.einsum("bi,ijo,bj->bo", x[:, 0], w, x[:, 1]), (64, 48)),
    "equalized": ((64,), (64, 48), lambda x, w: x @ (w * 0.125), (1, 0.75)),
    "patches": ((16, 16, 3), (4, 4, 3, 48), lambda x, w: ops.einsum("bhiwjc,ijco->bhwo", patches(x), w), (48, 48)),
    "convolution": ((9, 9, 8), (3, 3, 8, 24), lambda x, w: ops.conv(x, w, strides=2), (72, 54)),
    "cast": ((64,), (64, 48), lambda x, w: x @ ops.cast(ops.cast(w, "float64"), "float32"), (64, 48)),
    "depthwise": ((9, 9, 32), (3, 3, 32, 4), lambda x, w: ops.depthwise_conv(x, w), (9, 36)),
    "transposed convolution": (
        (8, 8, 32),
        (4, 4, 24, 32),
        lambda x, w: ops.conv_transpose(x, w, strides=2, padding="same")[:, 2:-2, 2:-2],
        (128, 384),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_hand_written_layers(name):
    size, shape, function, fans = PRODUCTS[name]
    model = own_model(size, [shape], function)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (kernel,) = kernels(model)
    assert kernel.fans == pytest.approx(fans)
    kernel.variable.assign(draw_kernel(kernel, keras.initializers.LecunNormal(), seed=0))
    x = RANDOM.standard_normal((512, *size)).astype("float32")
    assert np.mean(np.square(ops.convert_to_numpy(model(x)))) == pytest.approx(1, rel=0.2)


def test_the_axes_of_a_stack_of_experts():
    (kernel,) = kernels(own_model((6,), [(8, 6, 4)], lambda x, w: ops.einsum("bi,eio->beo", x, w)))
    assert (kernel.role, kernel.shape) == ("dense", (8, 6, 4))
    assert (kernel.in_axes, kernel.out_axes, kernel.batch_axes) == ((1,), (2,), (0,))
    model = own_model((6,), [(8, 6, 4)], lambda x, w: ops.einsum("bi,eio->beo", x, w))
    initialize(model, "orthogonal", seed=0)
    for expert in ops.convert_to_numpy(model.get_layer("own").held[0]):
        np.testing.assert_allclose(expert.T @ expert, np.eye(4), atol=1e-5)


def test_grouped_convolutions_of_operations():
    def grouped(x, w):
        return ops.conv(x, w, padding="same")

    (kernel,) = kernels(own_model((8, 8, 4), [(3, 3, 4, 6)], grouped))
    assert (kernel.role, kernel.fans) == ("conv", (36, 54))
    (kernel,) = kernels(own_model((8, 8, 4), [(3, 3, 4, 2)], lambda x, w: ops.depthwise_conv(x, w, padding="same")))
    assert (kernel.role, kernel.in_axes, kernel.out_axes, kernel.batch_axes) == ("depthwise", (), (3,), (2,))


def test_separable_convolutions_of_operations():
    depthwise, pointwise = kernels(
        own_model((8, 8, 4), [(3, 3, 4, 2), (1, 1, 8, 5)], lambda x, w, v: ops.separable_conv(x, w, v, padding="same"))
    )
    assert (depthwise.role, depthwise.fans, pointwise.role, pointwise.fans) == ("depthwise", (9, 18), "conv", (8, 5))


LOOKUPS = {
    "take": (lambda x, w: ops.take(w, x, axis=0), False),
    "one-hot": (lambda x, w: ops.one_hot(x, 9) @ w, False),
    "tied": (lambda x, w: ops.matmul(ops.take(w, x, axis=0), ops.transpose(w)), True),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_tables(name):
    function, tied = LOOKUPS[name]
    (kernel,) = kernels(own_model((5,), [(9, 4)], function, "int32"))
    assert (kernel.role, kernel.fans, kernel.tied) == ("embedding", (1, 4), tied)
    assert kernel.output_use.fans == (4, 9)


def scores(x, query, w):
    return ops.softmax(ops.einsum("qd,bnd->bqn", query @ w, x)) @ x


def weight_norm(x, v, g):
    return x @ (v * g / ops.sqrt(ops.sum(ops.square(v), axis=0)))


# Name: size of the input, shapes of weights, function, kernels, words in the reasons of the others.
OTHERS = {
    "token": (
        (5, 6),
        [(1, 1, 6)],
        lambda x, w: ops.concatenate([ops.broadcast_to(w, (ops.shape(x)[0], 1, 6)), x], 1),
        [],
        ["joined to a signal"],
    ),
    "positions": ((5, 6), [(16, 6)], lambda x, w: x + w[:5], [], ["added to a signal"]),
    "positions by index": (
        (5, 6),
        [(16, 6)],
        lambda x, w: x + ops.take(w, np.arange(5), axis=0),
        [],
        ["read at fixed places"],
    ),
    "bias of two axes": ((5, 6), [(5, 6)], lambda x, w: x + w, [], ["added to a signal"]),
    "gain and shift": ((6,), [(6,), (6,)], lambda x, a, b: x * a + b, [], ["element by element", "added"]),
    "mask token": (
        (5, 6),
        [(6,)],
        lambda x, w: ops.where(x > 0, x, ops.convert_to_tensor(w)),
        [],
        ["takes the place of a signal"],
    ),
    "learned query": ((5, 6), [(3, 6), (6, 6)], scores, [], ["factor of other weights"] * 2),
    "weight norm": ((6,), [(6, 4), (4,)], weight_norm, ["w0"], ["combines it with other weights"]),
    "adapter": (
        (6,),
        [(6, 4), (6, 2), (2, 4)],
        lambda x, w, a, b: x @ (w + a @ b),
        ["w0"],
        ["factor of other weights"] * 2,
    ),
    "adapter on its own": (
        (6,),
        [(6, 4), (6, 2), (2, 4)],
        lambda x, w, a, b: x @ w + x @ a @ b,
        ["w0", "w1", "w2"],
        [],
    ),
    "unused": ((6,), [(6, 4)], lambda x, w: x, ["w0 unknown"], ["not known"]),
    "function of a weight": ((6,), [(6, 4)], lambda x, w: x @ ops.tanh(w), ["w0 unknown"], ["by a function of it"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_weights_that_are_no_kernels(name):
    size, shapes, function, expected, reasons = OTHERS[name]
    model = own_model(size, shapes, function)
    held = model.get_layer("own").held
    found = WeightRoles(model)
    names = [f"{k.variable.name}{' unknown' if k.role == 'unknown' else ''}" for k in found.kernels]
    assert names == expected
    said = [found.reasons[id(weight)] for weight in held if id(weight) in found.reasons]
    assert len(said) == len(reasons)
    assert all(words in sentence for words, sentence in zip(reasons, said, strict=True))
    if not [each for each in expected if "unknown" not in each]:
        before = [ops.convert_to_numpy(weight).copy() for weight in held]
        report = initialize(model, "he_normal", seed=0)
        for weight, values, words in zip(held, before, reasons, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(weight), values)
            assert words in report.skipped[f"own/{weight.name}"]


def test_what_is_not_known_is_drawn_where_its_layer_is_named():
    model = own_model((64,), [(64, 48)], lambda x, w: x @ ops.tanh(w))
    for chosen in (None, lambda layer: True, "own", model.get_layer("own")):
        report = initialize(model, "he_normal", layers=chosen, seed=0)
        (change,) = report.kernels
        if isinstance(chosen, str | layers.Layer):
            assert change.scale == pytest.approx(2, rel=0.1)
            assert not change.skipped
        else:
            assert "layers='own'" in change.skipped


def test_a_description_wins_over_the_trace():
    from keras_initkit.structure import Kernel, register_kernels

    class Described(Own):
        pass

    register_kernels(Described, lambda layer: [Kernel(layer.held[0], in_axes=1, out_axes=0)])
    inputs = keras.Input((6,))
    (kernel,) = kernels(keras.Model(inputs, Described([(6, 4)], lambda x, w: x @ w)(inputs)))
    assert kernel.fans == (4, 6)


def test_a_subclass_of_a_keras_layer_with_another_call_is_read_anew():
    class Backwards(layers.Dense):
        def call(self, x):
            return x @ ops.transpose(self.kernel)

        def compute_output_shape(self, shape):
            return (*shape[:-1], 4)

    class Twice(layers.LSTMCell):
        def call(self, x, states, training=False):
            return super().call(2 * x, states, training)

    inputs = keras.Input((4,))
    layer = Backwards(4, use_bias=False)
    (kernel,) = kernels(keras.Model(inputs, layer(inputs)))
    assert (kernel.in_axes, kernel.out_axes) == ((1,), (0,))
    steps = keras.Input((5, 4))
    gated, recurrent = kernels(keras.Model(steps, layers.RNN(Twice(3))(steps)))
    assert (gated.shape, recurrent.role) == ((4, 4, 3), "recurrent")  # the gates are those of the base


def test_a_cell_of_ones_own_runs_in_a_loop_and_is_traced_by_itself():
    class Minimal(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.units = self.state_size = units

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
            self.recurrent_kernel = self.add_weight(shape=(self.units, self.units), name="recurrent_kernel")

        def call(self, x, states):
            output = ops.tanh(x @ self.kernel + states[0] @ self.recurrent_kernel)
            return output, [output]

    steps = keras.Input((5, 4))
    found = kernels(keras.Model(steps, layers.RNN(Minimal(3))(steps)))
    assert [(kernel.role, kernel.fans) for kernel in found] == [("dense", (4, 3)), ("recurrent", (3, 3))]


def test_a_layer_in_a_time_distributed_one_is_traced_by_itself():
    steps = keras.Input((5, 4))
    own = Own([(4, 3), (3,)], lambda x, w, b: x @ w + b)
    own.compute_output_shape = lambda shape: (*shape[:-1], 3)
    model = keras.Model(steps, layers.TimeDistributed(own)(steps))
    assert [(kernel.role, kernel.fans) for kernel in kernels(model)] == [("dense", (4, 3))]


def test_a_table_of_positions_in_an_embedding_layer_is_left_alone():
    class Positions(layers.Layer):
        def build(self, shape):
            self.words, self.places = layers.Embedding(50, 8, name="words"), layers.Embedding(5, 8, name="places")
            self.words.build(shape)
            self.places.build(shape)

        def call(self, x):
            return self.words(x) + self.places(ops.arange(5))

    tokens = keras.Input((5,), dtype="int32")
    model = keras.Model(tokens, layers.Dense(3)(Positions(name="positions")(tokens)))
    assert [kernel.layer.name for kernel in kernels(model) if kernel.role == "embedding"] == ["words"]
    assert "fixed places" in initialize(model, "he_normal").skipped["positions/places/embeddings"]


def test_an_output_tied_by_another_layer():
    class Head(layers.Layer):
        def __init__(self, table):
            super().__init__()
            self.table = table

        def call(self, x):
            return x @ ops.transpose(self.table)

    tokens = keras.Input((5,), dtype="int32")
    embedding = layers.Embedding(50, 8, name="words")
    hidden = embedding(tokens)
    model = keras.Model(tokens, Head(embedding.embeddings)(hidden))
    (kernel,) = kernels(model)
    assert (kernel.role, kernel.tied, math.prod(kernel.shape)) == ("embedding", True, 400)
