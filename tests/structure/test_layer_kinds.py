import keras
import numpy as np
import pytest

from keras_initkit.structure import _layer_kinds as kinds
from keras_initkit.structure._calls import calls
from keras_initkit.theory._activations import keras_name

L = keras.layers


class MyNormalization(L.BatchNormalization):
    pass


@pytest.mark.parametrize(
    ("question", "names"),
    [
        (kinds.is_normalization, "BatchNormalization GroupNormalization LayerNormalization RMSNormalization "
                                 "UnitNormalization"),
        (kinds.is_activation, "Activation ELU LeakyReLU PReLU ReLU Softmax"),
        (kinds.is_attention, "AdditiveAttention Attention GroupQueryAttention MultiHeadAttention"),
        (kinds.is_embedding, "Embedding ReversibleEmbedding"),
        (kinds.is_recurrent, "RNN SimpleRNN LSTM GRU ConvLSTM1D ConvLSTM2D ConvLSTM3D"),
        (kinds.is_opaque, "RNN SimpleRNN LSTM GRU ConvLSTM1D ConvLSTM2D ConvLSTM3D TimeDistributed"),
    ],
)  # fmt: skip
def test_which_of_keras_layers_each_question_picks_out(question, names):
    classes = {name: each for name, each in vars(L).items() if isinstance(each, type) and issubclass(each, L.Layer)}
    expected = {name for name in names.split() if name in classes}  # an older Keras lacks some
    assert {name for name in classes if question(name)} == expected
    assert {each for each in classes.values() if question(each.__name__)} == {classes[name] for name in expected}


def test_a_subclass_is_what_its_base_is_by_layer_and_by_name():
    assert kinds.is_normalization(MyNormalization())
    assert kinds.is_normalization("MyNormalization")
    assert not kinds.is_normalization(L.Normalization())
    assert not kinds.is_normalization("Normalization")
    assert not kinds.is_normalization(L.SpectralNormalization(L.Dense(1)))
    assert kinds.is_recurrent("MyRNN")
    assert not kinds.is_recurrent("Elsewhere")


def test_what_passes_elements_on_sums_nothing():
    assert all(map(kinds.passes_through, (L.Dropout(0.1), L.MaxPooling2D(), L.Flatten(), L.Normalization(),
                                          L.LayerNormalization(), L.SpatialDropout2D(0.1))))  # fmt: skip
    assert not any(map(kinds.passes_through, (L.Dense(1), L.Add(), L.ReLU(), L.LSTM(1), L.Softmax(), None)))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: L.Dense(1), False),
        (lambda: L.Dense(1, "linear"), False),
        (lambda: L.Dense(1, "gelu"), True),
        (lambda: L.Dense(1, activation=L.LeakyReLU()), True),
        (lambda: L.Activation("linear"), False),
        (lambda: L.Activation("tanh"), True),
        (lambda: L.Softmax(), True),
        (lambda: L.PReLU(), True),
        (lambda: L.RNN(L.LSTMCell(2)), True),
        (lambda: L.SimpleRNN(2, "linear"), False),
        (lambda: L.TimeDistributed(L.Dense(1)), False),
        (lambda: L.TimeDistributed(L.Dense(1, "relu")), True),
        (lambda: L.SpectralNormalization(L.Dense(1, "relu")), True),
        (lambda: L.MultiHeadAttention(1, 2), False),
        (lambda: L.MaxPooling1D(), False),
        (lambda: L.BatchNormalization(), False),
    ],
)
def test_what_bends(layer, expected):
    assert kinds.is_nonlinear(layer()) is expected


def test_operations_bend_by_their_numbers():
    x = keras.Input((4,))
    made = {name: keras.Model(x, function(x)) for name, function in {
        "relu": keras.ops.relu, "tanh": keras.ops.tanh, "negative": keras.ops.negative, "square": keras.ops.square,
        "reshape": lambda x: keras.ops.reshape(x, (-1, 2, 2)), "sum": lambda x: x + x}.items()}  # fmt: skip
    bends = {name: kinds.is_nonlinear(calls(model)[0].layer) for name, model in made.items()}
    assert bends == {"relu": True, "tanh": True, "negative": False, "square": True, "reshape": False, "sum": False}


def test_the_function_that_a_layer_applies():
    x = keras.ops.convert_to_tensor(np.array([[-2.0, 3.0]], "float32"))
    assert kinds.applied_activation(L.Dense(1)) is None
    assert kinds.applied_activation(L.Activation("linear")) is None
    assert kinds.applied_activation(L.MaxPooling1D()) is None
    assert kinds.applied_activation(L.TimeDistributed(L.Dense(1, "relu"))) is keras.activations.relu
    prelu = L.PReLU(alpha_initializer=keras.initializers.Constant(0.25), name="bent")
    prelu.build((None, 2))
    for layer, expected in ((prelu, -0.5), (L.LeakyReLU(negative_slope=0.5), -1.0), (L.ReLU(), 0.0)):
        function = kinds.applied_activation(layer)
        assert np.asarray(keras.ops.convert_to_numpy(function(x))).tolist() == [[expected, 3.0]]
        assert kinds.activation_name(function) == layer.name
    assert kinds.own_activation(L.Dense(1)) is keras.activations.linear
    assert kinds.own_activation(L.ReLU()) is None


def test_limits_of_what_a_layer_puts_out():
    assert kinds.output_limits(L.Dense(1, "tanh")) == (-1.0, 1.0)
    assert kinds.output_limits(L.Dense(1, "softmax")) is None
    assert kinds.output_limits(L.Dense(1, activation=L.PReLU())) is None
    assert kinds.output_limits(L.Flatten()) is None


def test_a_plain_relu_layer_has_the_closed_forms_of_the_function():
    assert keras_name(kinds.applied_activation(keras.layers.ReLU(name="any"))) == "relu"
    assert kinds.applied_activation(keras.layers.ReLU(name="any")).__name__ == "any"
    for other in (keras.layers.ReLU(6.0), keras.layers.ReLU(negative_slope=0.1), keras.layers.ReLU(threshold=1.0)):
        assert keras_name(kinds.applied_activation(other)) is None


@pytest.mark.parametrize(
    ("activation", "slope"),
    [("tanh", True), ("softmax", True), ("leaky_relu", True), ("relu", False), ("linear", False)],
)
def test_slope_at_zero(activation, slope, recwarn):
    """Keras warns of a softmax over one number, which would come with every probe of a classifier."""
    assert kinds.has_slope_at_zero(keras.layers.Dense(4, activation)) == slope
    assert not [str(each.message) for each in recwarn if "softmax" in str(each.message)]


def test_slope_at_zero_of_a_function_that_takes_other_shapes():
    assert not kinds.has_slope_at_zero(keras.layers.Dense(4, lambda x: keras.ops.reshape(x, (7, 7))))
