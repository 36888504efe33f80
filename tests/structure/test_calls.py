import itertools

import keras
import numpy as np
import pytest

from keras_initkit.structure._calls import calls
from keras_initkit.structure._layer_paths import named_layers

L = keras.layers


def summary(model):
    return [(call.path, call.index) for call in calls(model)]


def test_chain_and_shapes():
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3, name="conv"), L.Flatten(name="flat")])
    conv, flat, whole = calls(model)
    assert (conv.path, conv.layer, conv.index) == ("conv", model.layers[0], 0)
    assert conv.inputs[0].shape == (None, 8, 8, 3)
    assert conv.outputs == flat.inputs
    assert flat.outputs[0].shape == (None, 144)
    assert (whole.layer, whole.inputs, whole.outputs) == (model, conv.inputs, flat.outputs)


def test_branches_operations_and_several_inputs_and_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b", dtype="int32")
    x = L.Dense(4, name="dense")(a)
    total = x + a
    model = keras.Model([a, b], [total, L.Embedding(3, 2, name="words")(b)])
    by_path = {call.path: call for call in calls(model)}
    whole = by_path.pop("model")
    (plus,) = (call for path, call in by_path.items() if path.startswith("add"))
    assert plus.inputs == (by_path["dense"].outputs[0], whole.inputs[0])
    assert whole.outputs == (plus.outputs[0], by_path["words"].outputs[0])
    assert [tensor.is_float for tensor in whole.inputs] == [True, False]


def test_nested_models_are_opened_each_time_they_are_called():
    inside = keras.Input((4,))
    dense = L.Dense(4, name="dense")
    inner = keras.Model(inside, dense(dense(inside)), name="inner")
    outside = keras.Input((4,))
    model = keras.Model(outside, inner(keras.Sequential([inner], name="twice")(outside)))
    paths = {id(layer): path for path, layer in named_layers(model).items()}
    dense_path, inner_path = paths[id(dense)], paths[id(inner)]
    assert [index for path, index in summary(model) if path == dense_path] == [0, 1, 2, 3]
    assert [index for path, index in summary(model) if path == inner_path] == [0, 1]
    chain = [call for call in calls(model) if call.path == dense_path]
    assert all(before.outputs == after.inputs for before, after in itertools.pairwise(chain))


def order_of_the_forward_pass(model):
    """Independent: every leaf layer's `call` notes its name as the model runs."""
    seen = []
    for layer in model.layers:
        if not isinstance(layer, L.InputLayer):
            original = layer.call
            layer.call = lambda *args, _name=layer.name, _call=original, **options: (
                seen.append((_name, float(keras.ops.sum(args[0])))) or _call(*args, **options)
            )
    model(np.arange(4.0, dtype="float32")[None])
    return seen


def test_calls_come_in_the_order_of_the_forward_pass():
    inputs = keras.Input((4,))
    first, second, shared = L.Identity(name="first"), L.Rescaling(3.0, name="second"), L.Identity(name="shared")
    early = shared(second(second(inputs)))
    late = shared(first(inputs))
    model = keras.Model(inputs, L.Concatenate(name="join")([shared(early), late, first(early)]))
    expected = [name for name, _ in order_of_the_forward_pass(model) if name != "join"]
    assert [call.path for call in calls(model)][:-2] == expected


def test_models_that_cannot_be_traced():
    class Foreign(keras.Model):
        def call(self, x):
            return float(x[0, 0]) * x  # asks for a number

    foreign = Foreign(name="foreign")
    foreign.build((None, 4))
    foreign.built = True
    with pytest.raises(ValueError, match=r"foreign of class Foreign, which does not run on symbolic tensors \("):
        calls(foreign)

    class Anything(keras.Model):
        def call(self, *args):
            return args[0]

    anything = Anything(name="anything")
    anything(np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"anything of class Anything, which does not say what inputs it takes"):
        calls(anything)
    assert [call.path for call in calls(anything, np.ones((1, 2), "float32"))] == ["model"]
    assert [call.path for call in calls(anything, np.ones((1, 2)))] in (["cast", "model"], ["model"])  # by the version
    with pytest.raises(ValueError, match=r"not built.*keras.Input"):
        calls(keras.Sequential([L.Dense(2)]))
    with pytest.raises(ValueError, match="expected a Keras model"):
        calls(L.Dense(2))
