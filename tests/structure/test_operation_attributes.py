"""Operations of Keras have the attributes that prediction reads."""

import keras
import pytest

from keras_initkit.structure._calls import calls

L = keras.layers


@pytest.mark.parametrize(
    ("run", "attributes"),
    [
        (lambda x: keras.ops.transpose(x, (0, 2, 1)), {"axes": (0, 2, 1)}),
        (lambda x: keras.ops.moveaxis(x, [1], [2]), {"source": [1], "destination": [2]}),
        (lambda x: keras.ops.swapaxes(x, 1, 2), {"axis1": 1, "axis2": 2}),
        (lambda x: keras.ops.split(x, 2, axis=-1), {"axis": -1}),
        (lambda x: keras.ops.stack([x, x], axis=1), {"axis": 1}),
        (lambda x: keras.ops.concatenate([x, x], axis=1), {"axis": 1}),
        (lambda x: keras.ops.mean(x, axis=-1, keepdims=True), {"keepdims": True}),
        (lambda x: keras.ops.sum(x, axis=[1]), {"axis": [1], "keepdims": False}),
        (lambda x: keras.ops.softmax(x, axis=1), {"axis": 1}),
        (lambda x: keras.ops.take(x, keras.ops.arange(2), axis=1), {"axis": 1}),
        (lambda x: keras.ops.einsum("abc,abd->acd", x, x), {"subscripts": "abc,abd->acd"}),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_operations_hold_what_prediction_reads_of_them(run, attributes):
    """If one of these moves, prediction/operation_rules reads it under its new name."""
    inputs = keras.Input((4, 6))
    (operation,) = {
        call.layer for call in calls(keras.Model(inputs, run(inputs))) if not isinstance(call.layer, L.Layer)
    }
    assert {name: getattr(operation, name) for name in attributes} == attributes
