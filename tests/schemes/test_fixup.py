"""`"fixup"`: residual branches by the graph, and the scales of Zhang et al. 2019."""

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_initkit as ik
from keras_initkit.structure._residual import residual_branches

pytestmark = pytest.mark.one_backend


def resnet(kernels=2, blocks=3, operation=False, normalise=None):
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(32, 3, padding="same", activation="relu", name="stem")(inputs)
    for block in range(blocks):
        strides = 2 if block == 1 else 1
        filters = 32 if block < 1 else 64
        h = x
        for index in range(kernels):
            step = strides if index == 0 else 1
            h = L.Conv2D(filters, 3, strides=step, padding="same", name=f"block{block}_{index}")(h)
            if block == normalise:
                h = L.BatchNormalization(name=f"norm{block}")(h) if index == 0 else h
            h = L.ReLU()(h) if index < kernels - 1 else h
        shortcut = x if strides == 1 else L.Conv2D(filters, 1, strides=2, name=f"short{block}")(x)
        x = shortcut + h if operation else L.Add(name=f"sum{block}")([h, shortcut])
        x = L.ReLU()(x)
    return keras.Model(inputs, L.Dense(10, "softmax", name="head")(L.GlobalAveragePooling2D()(x)), name="resnet")


@pytest.mark.parametrize("kernels", [2, 3])
@pytest.mark.parametrize("operation", [False, True], ids=["Add", "plus"])
def test_scales_of_the_paper(kernels, operation):
    report = ik.initialize(resnet(kernels, operation=operation), "fixup", seed=0)
    inside = 2 * 3 ** (-2 / (2 * kernels - 2))  # of a variance: He's 2 times the square of L^(-1/(2m-2))
    for change in report.kernels:
        if change.layer == "head" or change.layer.endswith(f"_{kernels - 1}"):
            assert (change.scale, change.stddev_after) == (0, 0)
        else:
            expected = inside if change.layer.startswith("block") else 2.0
            error = 10 * np.sqrt(1.37 / (4 * np.prod(change.shape)))  # five standard errors of a variance
            assert change.scale == pytest.approx(expected, rel=error)
    assert "3 residual branches." in report.notes


def test_the_network_starts_as_its_shortcuts():
    model = resnet()
    ik.initialize(model, "fixup", seed=0)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    stem = model.get_layer("stem")
    short = model.get_layer("short1")
    expected = keras.ops.relu(short(stem(x)))
    out = keras.Model(model.input, model.layers[-3].output)(x)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(out), keras.ops.convert_to_numpy(expected), rtol=1e-5)
    np.testing.assert_allclose(model.predict(x, verbose=0), 0.1, rtol=1e-6)


def test_branches_in_nested_models_and_sums_of_three():
    def block(name):
        given = keras.Input((8,))
        h = L.Dense(8, name="b")(L.Dense(8, "relu", name="a")(given))
        other = L.Dense(8, name="d")(L.Dense(8, "relu", name="c")(given))
        return keras.Model(given, L.Add(name="sum")([given, h, other]), name=name)

    inputs = keras.Input((8,))
    model = keras.Model(inputs, L.Dense(1)(block("two")(block("one")(inputs))))
    found = [(branch.at, [call.path for call in branch.calls]) for branch in residual_branches(model)]
    assert found == [
        ("one/sum", ["one/a", "one/b"]),
        ("one/sum", ["one/c", "one/d"]),
        ("two/sum", ["two/a", "two/b"]),
        ("two/sum", ["two/c", "two/d"]),
    ]


def test_sums_that_are_not_residual():
    inputs = keras.Input((8,))
    towers = L.Add()([L.Dense(8)(L.Dense(8)(inputs)), L.Dense(8)(L.Dense(8)(inputs))])
    gated = L.Add()([L.Dense(8, "relu")(towers), L.Dense(8)(L.Dense(8)(towers))])
    twice = L.Add()([gated, gated])
    assert residual_branches(keras.Model(inputs, twice)) == []


def test_what_layers_leaves_out_stays_but_counts():
    model = resnet()
    before = keras.ops.convert_to_numpy(model.get_layer("block0_0").kernel.value).copy()
    report = ik.initialize(model, "fixup", layers=lambda layer: layer.name != "block0_0", seed=0)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model.get_layer("block0_0").kernel.value), before)
    scale = next(change.scale for change in report.kernels if change.layer == "block2_0")
    assert scale == pytest.approx(2 / 3, rel=10 * np.sqrt(1.37 / (4 * 9 * 64 * 64)))


def attention_model():
    inputs = keras.Input((4, 8))
    return keras.Model(
        inputs, L.Dense(1)(L.Add(name="sum")([inputs, L.MultiHeadAttention(2, 4, name="mha")(inputs, inputs)]))
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras.Sequential([keras.Input((3,)), L.Dense(2)]), "has no residual branches: no sum of a tensor and"),
        (lambda: resnet(kernels=1), "the branch that ends in 'sum0' has 1 kernel, expected two or more"),
        (
            lambda: resnet(normalise=2),
            r"ends in 'sum2' has a normalization, 'norm2' \(BatchNormalization",
        ),
        (attention_model, "the branch that ends in 'sum' has 'mha' .*not a chain of kernels"),
    ],
    ids=["plain", "one_kernel", "normalised", "attention"],
)
def test_it_refuses_and_names_the_place(make, message):
    model = make()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        ik.initialize(model, "fixup")
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_branches_inside_a_subclassed_model():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = L.Dense(64, name="one"), L.Dense(64, name="two"), L.Dense(2, name="head")

        def call(self, x):
            return self.head(x + self.two(keras.ops.relu(self.one(x))))

    model = Own()
    model(np.ones((1, 64)))
    ik.initialize(model, "fixup", seed=0)
    one, two, head = (keras.ops.convert_to_numpy(layer.kernel) for layer in (model.one, model.two, model.head))
    # One branch of two kernels: He's variance times 1 ** -1, and the last is zero, as is the classifier.
    assert np.mean(one**2) == pytest.approx(2 / 64, rel=10 * np.sqrt(1.37 / (4 * 64 * 64)))
    assert not two.any()
    assert not head.any()


def test_a_model_that_cannot_be_traced_is_refused():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(4)

        def call(self, x):
            return x + self.dense(x) * float(keras.ops.sum(x) > 0)

    model = Own()
    model(np.ones((1, 4)))
    with pytest.raises(ValueError, match="does not run on symbolic tensors"):
        ik.initialize(model, "fixup", np.ones((2, 4)))


def test_it_trains():
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
    y = (x.mean(axis=(1, 2, 3)) > 0).astype("int32")
    model = resnet()
    ik.initialize(model, "fixup", seed=0)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    losses = model.fit(x, y, epochs=4, batch_size=32, verbose=0, shuffle=False).history["loss"]
    assert losses[0] < np.log(10) + 1e-3  # where all classes are equally likely
    assert losses[-1] < losses[0]
