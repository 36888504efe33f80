"""Which tensors of a layer's call a probe reads."""

import keras
import numpy as np
from helpers import values
from keras import layers, ops

from keras_initkit.capture._layer_hooks import CaptureHooks
from keras_initkit.statistics._tap import Tap

X = ops.convert_to_tensor(np.array([[1.0, -2.0, 3.0]], "float32"))


def record(call, **by_path):
    """What is read while `call()` runs: pairs of a tap and its array."""
    seen = []
    with CaptureHooks(by_path, lambda tap, array: seen.append((tap, array))).connected():
        call()
    return seen


def taps(call, **by_path):
    return [tap for tap, _ in record(call, **by_path)]


def test_calls_of_a_layer_are_numbered():
    dense = layers.Dense(3, name="dense", kernel_initializer="identity")
    seen = record(lambda: dense(2 * dense(X)), dense=dense)
    assert [tap for tap, _ in seen] == [Tap(kind, "dense", call) for call in (0, 1) for kind in ("input", "output")]
    for (_, array), factor in zip(seen, (1, 1, 2, 2), strict=True):
        np.testing.assert_array_equal(array, factor * values(X))
    assert "call" not in vars(dense)


def test_masks_of_numbers_are_no_signals():
    class Masked(layers.Layer):
        def call(self, x, attention_mask=None, scale=None):
            return x * attention_mask * scale

    layer = Masked()
    seen = record(lambda: layer(X, attention_mask=ops.zeros((1, 3)), scale=ops.full((1, 3), 5.0)), m=layer)
    assert [tap for tap, _ in seen] == [Tap("input", "m", 0, "0"), Tap("input", "m", 0, "1"), Tap("output", "m", 0)]
    assert [array.max() for _, array in seen] == [3, 5, 0]


def test_what_an_activation_is_applied_to_is_read_each_time():
    class Twice(layers.Dense):
        def call(self, x):
            z = super().call(x)
            return self.activation(z) + self.activation(z - 1)

    layer = Twice(3, "relu", name="twice", kernel_initializer="identity")
    seen = dict(record(lambda: layer(X), twice=layer))
    named = {tap.name: array for tap, array in seen.items() if tap.kind == "pre_activation"}
    assert list(named) == ["", "1", "2"]
    for array, expected in zip(named.values(), ([1, -2, 3], [1, 0, 3], [0, -1, 2]), strict=True):
        np.testing.assert_array_equal(array, [expected])


def test_an_activation_of_the_input_itself_has_no_row_of_its_own():
    layer = layers.Activation("relu")
    assert taps(lambda: layer(X), a=layer) == [Tap("input", "a", 0), Tap("output", "a", 0)]
    linear = layers.Dense(2)
    assert taps(lambda: linear(X), d=linear) == [Tap("input", "d", 0), Tap("output", "d", 0)]


def test_inside_a_time_distributed_layer_nothing_is_read_but_after_it_all():
    dense = layers.Dense(3)
    distributed = layers.TimeDistributed(dense)
    x = ops.ones((1, 2, 3))

    def call():
        distributed(x)
        dense(X)

    expected = [Tap(kind, layer, 0) for layer in ("over_time", "dense") for kind in ("input", "output")]
    assert taps(call, over_time=distributed, dense=dense) == expected


def test_an_exception_inside_a_time_distributed_layer_leaves_nothing_behind():
    class Refusing(layers.Layer):
        on = True

        def call(self, x):
            if self.on:
                raise RuntimeError("on purpose")
            return x

    refusing = Refusing()
    distributed = layers.TimeDistributed(refusing)

    def call():
        try:
            distributed(ops.ones((1, 2, 3)))
        except RuntimeError:
            refusing.on = False
        refusing(X)

    assert taps(call, over_time=distributed, inside=refusing)[-1] == Tap("output", "inside", 0)


def test_a_composite_layer_has_a_row_for_each_output_that_is_not_its_parts():
    inner = layers.Dense(3, name="inner")

    class Joined(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def call(self, x):
            y = self.inner(x)
            return y, 2 * y, x + 1

    joined = Joined()
    joined(X)  # built
    assert taps(lambda: joined(X), joined=joined, inner=inner) == [
        *(Tap("input", "inner", 0), Tap("output", "inner", 0)),
        *(Tap("output", "joined", 0, "1"), Tap("output", "joined", 0, "2")),
    ]


def test_integers_are_not_read():
    embedding = layers.Embedding(4, 2)
    indices = keras.ops.convert_to_tensor([[1, 2]], "int32")  # early versions of Keras make floats of arrays
    assert taps(lambda: embedding(indices), e=embedding) == [Tap("output", "e", 0)]


def test_an_activation_that_is_a_layer_is_no_part():
    dense = layers.Dense(3, activation=layers.ReLU())
    dense(X)  # built
    assert taps(lambda: dense(X), d=dense) == [Tap(kind, "d", 0) for kind in ("input", "pre_activation", "output")]
