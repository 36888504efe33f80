"""What `kernels` says of a layer, which layers it walks over, and how a user's own layer is described."""

import warnings

import keras
import numpy as np
import pytest
from helpers import built
from keras import layers, ops

from keras_initkit.structure import Kernel, kernels, layer_fans, register_kernels


def paths(layer):
    return [kernel.variable.path for kernel in kernels(layer)]


class OneMatrix(layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 5), name="w")
        self.b = self.add_weight(shape=(5,), name="b")
        self.state = self.add_weight(shape=(3, 3), trainable=False, name="state")
        self.counts = self.add_weight(shape=(3, 3), dtype="int32", initializer="zeros", trainable=False, name="counts")


# What a kernel is


def test_kernel_of_dense():
    layer = built(layers.Dense(3), (None, 2))
    (kernel,) = kernels(layer)
    assert kernel.variable is layer.kernel
    assert kernel.layer is layer
    assert (kernel.role, kernel.shape, kernel.in_axes, kernel.out_axes, kernel.batch_axes) == (
        "dense", (2, 3), (0,), (1,), (),
    )  # fmt: skip


def test_strides_and_roles():
    layer = built(layers.SeparableConv2D(5, (3, 1), strides=(2, 2)), (None, 8, 8, 4))
    depthwise, pointwise = kernels(layer)
    assert (depthwise.role, depthwise.strides, depthwise.batch_axes) == ("depthwise", (2, 2), (2,))
    assert (pointwise.role, pointwise.strides) == ("conv", ())
    (kernel,) = kernels(built(layers.Conv2DTranspose(5, 3, strides=(2, 1)), (None, 8, 8, 4)))
    assert (kernel.role, kernel.strides, kernel.in_axes, kernel.out_axes) == ("conv_transpose", (2, 1), (3,), (2,))


def test_groups_are_a_batch_axis():
    layer = built(layers.Conv1D(6, 1, groups=2, use_bias=False), (None, 4, 10))
    (kernel,) = kernels(layer)
    assert kernel.shape == (1, 5, 2, 3)
    view = np.zeros(kernel.shape)
    view[:, :, 1] = 1  # the second group
    layer.kernel.assign(view.reshape(layer.kernel.shape))
    x = np.arange(10.0)[None, None]
    expected = [0, 0, 0, *[5 + 6 + 7 + 8 + 9] * 3]
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x))[0, 0], expected)


def gate_block(kernel, gate):
    """Values of `kernel` that are 1 in the block of one gate and 0 elsewhere."""
    view = np.zeros(kernel.shape)
    view[..., kernel.gates.index(gate), :] = 1
    return view.reshape(kernel.variable.shape)


def close(gate, layer, kernel):
    """Makes the gate's pre-activation very negative for inputs of 1, and the others' 0."""
    layer.kernel.assign(-1e3 * gate_block(kernel, gate))


def test_lstm_gates_are_where_their_names_say():
    layer = built(layers.LSTMCell(2, use_bias=False, recurrent_initializer="zeros"), (None, 3))
    kernel, recurrent = kernels(layer)
    assert (kernel.shape, kernel.role) == ((3, 4, 2), "dense")
    assert (recurrent.shape, recurrent.role) == ((2, 4, 2), "recurrent")
    layer.activation = ops.ones_like  # c = 2 f + i, h = o; an open gate is 1/2
    results = {}
    for gate in kernel.gates:
        close(gate, layer, kernel)
        output, (_, carry) = layer(np.ones((1, 3)), [np.ones((1, 2)), np.full((1, 2), 2.0)])
        results[gate] = (ops.convert_to_numpy(carry)[0, 0].item(), ops.convert_to_numpy(output)[0, 0].item())
    assert results == {"input": (1.0, 0.5), "forget": (0.5, 0.5), "cell": (1.5, 0.5), "output": (1.5, 0.0)}


def test_gru_gates_are_where_their_names_say():
    layer = built(layers.GRUCell(2, use_bias=False, activation="linear"), (None, 3))
    kernel, recurrent = kernels(layer)
    assert (kernel.shape, recurrent.shape, recurrent.role) == ((3, 3, 2), (2, 3, 2), "recurrent")
    layer.recurrent_kernel.assign(gate_block(recurrent, "candidate"))  # h = z * 1 + (1 - z) * (x_h + 2 r)
    results = {}
    for gate in kernel.gates:
        close(gate, layer, kernel)
        results[gate] = ops.convert_to_numpy(layer(np.ones((1, 3)), [np.ones((1, 2))])[0])[0, 0].item()
    assert results == {"update": 1.0, "reset": 0.5, "candidate": 0.5 + 0.5 * (-3000 + 1)}


def test_embedding_reads_one_row():
    (kernel,) = kernels(built(layers.Embedding(100, 8), (None,)))
    assert (kernel.role, kernel.fans) == ("embedding", (1, 8))


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="ReversibleEmbedding came after Keras 3.3")
def test_reversible_embedding():
    tied = built(layers.ReversibleEmbedding(100, 8), (None,))
    assert [kernel.fans for kernel in kernels(tied)] == [(1, 8)]
    untied = built(layers.ReversibleEmbedding(100, 8, tie_weights=False), (None,))
    assert [kernel.fans for kernel in kernels(untied)] == [(1, 8), (8, 100)]


def test_additive_attention_scores_by_a_sum():
    layer = built(layers.AdditiveAttention(), [(None, 4, 16), (None, 6, 16)])
    assert layer_fans(layer)[layer.scale] == (16, 1)
    assert kernels(built(layers.AdditiveAttention(use_scale=False), [(None, 4, 16), (None, 6, 16)])) == []


@pytest.mark.parametrize(
    ("equation", "output_shape", "fans"),
    [
        ("...b,bc->...c", 7, (4, 7)),
        ("abc,cde->abde", (None, 7, 5), (4, 35)),
        ("abc,bc->abc", (3, 4), (1, 1)),  # element by element
        ("abc,bcd->ad", 7, (3 * 4, 7)),
    ],
)
def test_einsum_axes(equation, output_shape, fans):
    layer = built(layers.EinsumDense(equation, output_shape), (None, 3, 4))
    assert kernels(layer)[0].fans == fans


def test_lora_and_quantization():
    layer = built(layers.Dense(8), (None, 6))
    kernel = layer.kernel
    layer.enable_lora(2)
    assert [found.variable is kernel for found in kernels(layer)] == [True]  # layer.kernel is a sum now
    layer = built(layers.Dense(8), (None, 6))
    layer.quantize("int8")
    if hasattr(layer, "quantization_mode"):
        assert kernels(layer) == []


def test_layers_without_a_kernel_are_silent():
    shape = (None, 4, 5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in (layers.PReLU(), layers.LayerNormalization(axis=(2, 3)), layers.BatchNormalization()):
            assert kernels(built(layer, shape)) == []
        layer = built(layers.SpectralNormalization(layers.Dense(3)), (None, 2))
        layer.trainable = False
        assert [kernel.variable is layer.layer.kernel for kernel in kernels(layer)] == [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"role": "dens"}, r"role: got 'dens', expected one of 'dense', 'conv'"),
        ({"shape": (2, 2)}, r"shape: got \(2, 2\) for .*kernel, expected the size of \(2, 3\)"),
        ({"in_axes": 1}, "axis 1 of a kernel of shape .* is in in_axes already"),
        ({"batch_axes": 2}, "batch_axes: got axis 2 for a kernel of shape"),
    ],
)
def test_kernel_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Kernel(built(layers.Dense(3), (None, 2)).kernel, **options)


# Which layers are walked over


def test_shared_layers_and_nested_models_are_listed_once():
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared, layers.Dense(4, name="own")])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(shared(inner(inner(inputs)))))
    found = kernels(model)
    assert [kernel.layer.name for kernel in found] == ["shared", "own", "head"]
    assert len(layer_fans(model)) == 3
    assert layer_fans(model)[shared.kernel] == (4, 4)


def test_cells_wrappers_and_attention():
    stacked = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], name="stacked")
    model = keras.Sequential(
        [keras.Input((5, 4)), layers.TimeDistributed(layers.Dense(6)), layers.Bidirectional(stacked)]
    )
    assert [kernel.fans for kernel in kernels(model)] == [(4, 6), *[(6, 3), (3, 3), (3, 2), (2, 2)] * 2]
    attention = built(layers.MultiHeadAttention(2, 3, value_dim=4), (None, 5, 8), (None, 5, 8))
    assert [kernel.fans for kernel in kernels(attention)] == [(8, 6), (8, 6), (8, 8), (8, 8)]


def test_conv_lstm_is_not_asked_twice_through_its_cell():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = kernels(built(layers.ConvLSTM1D(3, 2, strides=2), (None, 4, 8, 5)))
    assert [(kernel.role, kernel.strides, kernel.shape) for kernel in found] == [
        ("conv", (2,), (2, 5, 4, 3)),
        ("recurrent", (), (2, 3, 4, 3)),
    ]


def test_one_kernel_in_two_layers_is_listed_once_without_a_warning():
    class Tied(layers.Layer):
        def __init__(self, other):
            super().__init__()
            self.kernel = other.kernel

        def call(self, x):
            return x @ ops.transpose(self.kernel)

    dense = built(layers.Dense(3), (None, 2))
    model = keras.Sequential([keras.Input((2,)), dense, Tied(dense)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [kernel.layer for kernel in kernels(model)] == [dense]


def test_a_layer_that_is_not_built_is_refused_but_an_unused_part_is_not():
    with pytest.raises(ValueError, match="got unbuilt, which is not built"):
        kernels(layers.Dense(3, name="unbuilt"))

    class Half(layers.Layer):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(3), layers.Dense(3)

        def build(self, shape):
            self.used.build(shape)

        def call(self, x):
            return self.used(x)

    layer = Half()
    layer(np.ones((1, 2)))
    assert [kernel.layer for kernel in kernels(layer)] == [layer.used]


def test_something_that_is_no_layer_is_refused():
    with pytest.raises(ValueError, match="layer: got 3, expected a Keras layer or model"):
        layer_fans(3)


# A layer that is not known


def test_layer_whose_use_of_its_weights_is_not_known_is_read_by_default_in_silence():
    layer = built(OneMatrix(name="mine"), (None, 4))  # it has no `call`
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (kernel,) = kernels(layer)
    assert kernel.variable is layer.w
    assert (kernel.role, kernel.fans) == ("unknown", (4, 5))


def test_frozen_unknown_layer_still_has_its_kernel():
    layer = built(OneMatrix(), (None, 4))
    layer.trainable = False
    fans = layer_fans(layer)
    assert fans[layer.w] == (4, 5)
    assert layer.counts not in fans


def test_unknown_layer_around_known_ones_is_silent():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = [layers.Dense(3), layers.Conv1D(2, 3)]

        def call(self, x):
            return self.parts[1](self.parts[0](x))

    block = Block()
    block(np.ones((1, 5, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(layer_fans(block).values()) == [(4, 3), (9, 6)]


def test_registered_layer_and_its_subclasses():
    class Transposed(OneMatrix):
        pass

    class Child(Transposed):
        pass

    @register_kernels(Transposed)
    def transposed_kernels(layer):
        return [Kernel(layer.w, in_axes=1, out_axes=0)]

    assert callable(transposed_kernels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer_class in (Transposed, Child):
            layer = built(layer_class(), (None, 4))
            assert layer_fans(layer)[layer.w] == (5, 4)
        register_kernels(Child, lambda layer: [])
        assert kernels(built(Child(), (None, 4))) == []
        assert len(kernels(built(Transposed(), (None, 4)))) == 1


def test_subclass_of_a_known_layer_is_known():
    class Mine(layers.Conv1D):
        pass

    layer = built(Mine(6, 3, groups=2), (None, 8, 4))
    assert layer_fans(layer)[layer.kernel] == (3 * 2, 3 * 3)


def test_registration_refuses():
    with pytest.raises(ValueError, match="layer_class: got 'Dense', expected a subclass of keras"):
        register_kernels("Dense")
    with pytest.raises(ValueError, match="describe: got 3, expected a function"):
        register_kernels(OneMatrix, 3)

    class Wrong(OneMatrix):
        pass

    layer = built(Wrong(), (None, 4))
    for returned, shown in ((layer.w, "Variable"), ([layer.w], r"\['Variable'\]"), (None, "NoneType")):
        register_kernels(Wrong, lambda layer, returned=returned: returned)
        with pytest.raises(ValueError, match=f"Wrong: the function .* returned {shown}, expected a list"):
            kernels(layer)
