"""Composite layers and subclassed models are opened down to operations, and nothing of them changes."""

import threading

import keras
import numpy as np
from keras import layers, ops

from keras_initkit.structure._calls import calls, inputs_structure, traced_once


class Norm(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale", initializer="ones")

    def call(self, x):
        return x * ops.rsqrt(ops.mean(ops.square(x), -1, keepdims=True) + 1e-6) * self.scale


class Block(layers.Layer):
    def __init__(self, width, **options):
        super().__init__(**options)
        self.norm, self.up, self.down = (
            Norm(name="norm"),
            layers.Dense(2 * width, "gelu", name="up"),
            layers.Dense(width, name="down"),
        )

    def call(self, x):
        return x + self.down(self.up(self.norm(x)))


class Experts(layers.Layer):
    def build(self, shape):
        self.kernels = [self.add_weight(shape=(shape[-1], 3), name=name) for name in "ab"]
        self.table = self.add_weight(shape=(shape[-1], 3), name="table")

    def call(self, x):
        first, second = self.kernels
        return x @ first + ops.matmul(x, ops.reshape(second, (-1, 3))) + ops.sum(self.table)


def paths(model, x=None):
    return [(call.path, call.index) for call in calls(model, x)]


def test_a_composite_is_opened_down_to_operations():
    model = keras.Sequential([keras.Input((4,)), Block(4, name="block")])
    names = [path for path, _ in paths(model)]
    inside = [f"block/norm/{name}" for name in ("square", "mean", "add", "rsqrt", "multiply", "multiply_1")]
    assert names == [*inside, "block/norm", "block/up", "block/down", "block/add", "block", "model"]
    by_path = {call.path: call for call in calls(model)}
    whole, block, norm = by_path["model"], by_path["block"], by_path["block/norm"]
    assert norm.opened
    assert block.opened
    assert whole.opened
    assert not by_path["block/up"].opened
    assert block.inputs == norm.inputs == whole.inputs
    assert norm.outputs == by_path["block/norm/multiply_1"].outputs == by_path["block/up"].inputs
    assert by_path["block/add"].inputs == (*whole.inputs, *by_path["block/down"].outputs)
    assert block.outputs == by_path["block/add"].outputs == whole.outputs


def test_constants_and_weights_are_among_the_arguments():
    layer = Norm(name="norm")
    model = keras.Sequential([keras.Input((4,)), layer])
    by_path = {call.path: call for call in calls(model)}
    added = by_path["norm/add"]
    assert len(added.inputs) == 1
    assert added.args[1] == 1e-6
    last = by_path["norm/multiply_1"]
    assert last.inputs[1].variable is layer.scale
    assert last.args[1] is last.inputs[1]
    assert by_path["norm/mean"].layer.axis in (-1, [-1], (-1,))
    assert by_path["norm/mean"].layer.keepdims


def test_weights_in_lists_and_what_is_made_of_them():
    layer = Experts(name="experts")
    model = keras.Sequential([keras.Input((4,)), layer])
    made = {tensor: call for call in calls(model) for tensor in call.outputs if not call.opened}
    products = [call for call in calls(model) if type(call.layer).__name__ == "Matmul"]
    first, second = (call.inputs[1] for call in products)
    assert first.variable is layer.kernels[0]
    assert made[second].inputs[0].variable is layer.kernels[1]
    assert second.shape == (4, 3)
    assert any(layer.kernels[0] is weight for weight in layer.weights)
    assert [tuple(variable.shape) for variable in layer.weights] == [(4, 3)] * 3


def test_a_shared_composite_has_a_call_for_each_use():
    block = Block(4, name="block")
    x = keras.Input((4,))
    model = keras.Model(x, block(block(x)))
    counted = {}
    for path, index in paths(model):
        counted.setdefault(path, []).append(index)
    assert counted.pop("model") == [0]
    assert len(counted) == 11
    assert all(indices == [0, 1] for indices in counted.values())


def test_attention_is_opened_and_masks_are_no_inputs():
    tokens = keras.Input((6,), dtype="int32")
    embedded = layers.Embedding(5, 8, mask_zero=True, name="table")(tokens)
    model = keras.Model(tokens, layers.MultiHeadAttention(2, 4, name="attention")(embedded, embedded))
    found = {call.path: call for call in calls(model)}
    attention = found["attention"]
    assert attention.opened
    assert attention.inputs == (found["table"].outputs[0],) * 2
    projections = [f"attention/{name}" for name in ("query", "key", "value", "attention_output")]
    assert [path for path in found if path in projections] == projections
    assert all(found[path].inputs == found["table"].outputs for path in projections[:3])


def test_dictionaries_and_several_outputs():
    class Pair(layers.Layer):
        def call(self, features, scale=None):
            return {"sum": features["a"] + features["b"], "none": None, "sines": ops.sin(ops.arange(3.0))}

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.pair = Pair(name="pair")

        def call(self, features):
            return self.pair(features)["sum"]

    model, x = Own(), {"a": np.zeros((5, 3), "float32"), "b": np.ones((5, 3), "float32")}
    model(x)
    found = {call.path: call for call in calls(model, x)}
    assert found["pair/add"].inputs == found["model"].inputs
    assert [tensor.shape for tensor in found["pair"].outputs] == [(3,), (None, 3)]


def test_the_structure_of_inputs():
    inputs = {name: keras.Input((2,), name=name) for name in ("two", "one")}
    total = layers.Add()(list(inputs.values()))
    assert inputs_structure(keras.Model(inputs, total)) == inputs
    assert inputs_structure(keras.Model(list(inputs.values()), total)) == list(inputs.values())
    sequential = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    sequential(inputs["one"])  # is no input of this model's own
    assert inputs_structure(sequential) is None
    assert inputs_structure(keras.Sequential([layers.Dense(2)])) is None


def test_a_subclassed_model_is_traced_from_its_data_or_the_shape_that_it_was_built_for():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.block, self.head = Block(4, name="block"), layers.Dense(2, name="head")

        def call(self, x):
            return self.head(self.block(x["features"] if isinstance(x, dict) else x))

    model = Own()
    x = {"features": np.zeros((5, 4), "float32")}
    model(x)
    found = calls(model, x)
    assert [call.path for call in found][-3:] == ["block", "head", "model"]
    assert found[-1].inputs[0].shape == (None, 4)
    called = Own()
    called(x["features"])
    assert calls(called)[-1].outputs[0].shape == (None, 2)


def test_what_cannot_run_on_symbols_is_one_call_with_its_reason():
    class Branching(layers.Layer):
        def call(self, x):
            return x if float(ops.sum(x)) > 0 else -x

        def compute_output_shape(self, shape):
            return shape

    model = keras.Sequential([keras.Input((4,)), Branching(name="branching"), layers.Dense(2, name="head")])
    branching, head, _ = calls(model)
    assert (branching.path, branching.opened, head.inputs) == ("branching", False, branching.outputs)
    assert branching.reason.startswith(("TypeError", "ValueError", "AttributeError"))
    assert not head.reason


def test_nothing_of_the_model_changes():
    class Noisy(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.seeds = keras.random.SeedGenerator(1)
            self.late = layers.Dense(3)  # nobody builds it
            self.dense = layers.Dense(4)

        def build(self, shape):
            self.counter = self.add_weight(shape=(), name="counter", initializer="zeros", trainable=False)
            self.dense.build(shape)

        def call(self, x):
            self.counter.assign(self.counter + 1.0)
            self.add_loss(ops.sum(x))
            return self.dense(x) + keras.random.normal(ops.shape(x), seed=self.seeds)

    keras.utils.set_random_seed(0)
    layer = Noisy(name="noisy")
    model = keras.Sequential([keras.Input((4,)), layer, Block(4), layers.BatchNormalization(), layers.Dropout(0.5)])
    model(np.zeros((2, 4), "float32"))
    every = [layer, *layer._layers, *model.layers]

    def state():
        nodes = [len(each._inbound_nodes) + len(each._outbound_nodes) for each in every]
        attributes = [sorted(vars(each)) for each in every]
        values = [ops.convert_to_numpy(weight).copy() for weight in model.weights]
        seeds = [ops.convert_to_numpy(each.state) for each in (layer.seeds, keras.random.SeedGenerator(0))]
        return nodes, attributes, [each.built for each in every], len(model.losses), values, seeds

    before = state()
    name = layers.Dense(1).name
    calls(model)
    after = state()
    assert int(layers.Dense(1).name.rpartition("_")[2]) == int(name.rpartition("_")[2]) + 1
    assert before[:4] == after[:4]
    for one, two in zip(before[4] + before[5], after[4] + after[5], strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(layer.counter is weight for weight in layer.weights)
    assert any(layer.dense.kernel is weight for weight in layer.weights)


def test_other_threads_make_models_meanwhile():
    made = []

    class Waiting(layers.Layer):
        def call(self, x):
            thread = threading.Thread(
                target=lambda: made.append(keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.ReLU()]))
            )
            thread.start()
            thread.join()
            return x + 1.0

    model = keras.Sequential([keras.Input((4,)), Waiting(name="waiting")])
    made.clear()
    assert [path for path, _ in paths(model)] == ["waiting/add", "waiting", "model"]
    assert made[-1](np.ones((3, 4), "float32")).shape == (3, 2)
    assert [path for path, _ in paths(made[-1])][-1] == "model"


def test_a_model_is_traced_once_within_a_verb():
    runs = []

    class Counted(layers.Layer):
        def call(self, x):
            runs.append(1)
            return x + 1.0

    model = keras.Sequential([keras.Input((4,)), Counted()])
    runs.clear()
    with traced_once():
        assert calls(model) is calls(model)
    assert len(runs) == 1
    assert calls(model) is not calls(model)
    assert len(runs) == 3
