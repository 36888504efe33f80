"""Private names of Keras still hold what `keras_initkit._compat` reads in them."""

import keras

from keras_initkit import _compat

L = keras.layers


def test_tracked_layers_are_those_of_the_public_list_of_a_model():
    inputs = keras.Input((2,))
    shared = L.Dense(2, name="shared")
    functional = keras.Model(inputs, shared(shared(inputs)))
    assert _compat.tracked_layers(functional) == functional.layers
    sequential = keras.Sequential([keras.Input((2,)), functional, L.ReLU()])
    tracked = [layer for layer in _compat.tracked_layers(sequential) if not isinstance(layer, L.InputLayer)]
    assert tracked == sequential.layers
    attention = L.MultiHeadAttention(2, 3)
    attention.build((None, 4, 6), (None, 4, 6))
    query, value, key = _compat.attention_projections(attention)
    assert [query.name, value.name, key.name] == ["query", "value", "key"]
    assert all(part in _compat.tracked_layers(attention) for part in (query, value, key))


def test_the_node_that_made_a_tensor_tells_the_call():
    inputs = keras.Input((3,))
    layer = L.Dense(3)
    between = layer(inputs)
    output = layer(between)
    first, second = _compat.producing_node(between), _compat.producing_node(output)
    assert first.operation is second.operation is layer
    assert second.output_tensors[0] is output
    assert second.input_tensors[0] is between
    assert first.input_tensors[0] is inputs
