"""Which layers' scale is taken away or multiplied on its way to the output."""

import keras
import pytest
from keras import layers as L

from keras_initkit.structure._calls import calls
from keras_initkit.structure._reach_of_scale import closed_layers, gated_layers

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    ("between", "gated"),
    [
        ((), True),
        ((L.Reshape((8, 1)), L.Flatten()), True),  # what only moves
        ((L.ReLU(),), True),
        ((L.Dropout(0.1),), True),
        ((L.Dense(8, name="other"),), False),  # the kernel before it gates nothing by itself
    ],
)
def test_what_stands_before_a_product_of_signals_gates(between, gated):
    inputs = keras.Input((8,))
    x = L.Dense(8, name="gate")(inputs)
    for layer in between:
        x = layer.from_config(layer.get_config())(x)
    outputs = L.Dense(2, name="head")(L.Multiply()([x, L.Dense(8, name="value")(inputs)]))
    found = gated_layers(calls(keras.Model(inputs, outputs)), {"gate", "other", "value", "head"})
    assert ("gate" in found) == gated
    assert {"value"} <= found
    assert "head" not in found


@pytest.mark.parametrize(
    ("end", "closed", "by_normalization"),
    [
        (L.LayerNormalization, True, True),
        (lambda: L.Activation("tanh"), True, False),
        (lambda: L.Activation("relu"), False, False),
        (lambda: L.Reshape((4, 2)), False, False),
    ],
)
def test_what_a_normalization_or_a_bounded_function_closes(end, closed, by_normalization):
    inputs = keras.Input((8,))
    x = end()(L.Dense(8, name="scaled")(inputs))
    graph = calls(keras.Model(inputs, L.Dense(2, name="head")(x)))
    assert ("scaled" in closed_layers(graph)) == closed
    assert ("scaled" in closed_layers(graph, by_normalization=True)) == by_normalization
    assert "head" not in closed_layers(graph)
