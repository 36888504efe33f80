"""Models that only say how they train, as those of Keras' examples: a GAN, a VAE, a teacher and a student."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initkit as ik
from keras_initkit.prediction import predict
from keras_initkit.structure import kernels
from keras_initkit.structure._calls import calls
from keras_initkit.structure._following import following_activations
from keras_initkit.structure._graph import readers
from keras_initkit.structure._residual import residual_branches

SENTENCE = "model: got pair, a Pair without a `call`, .* Pass one of its parts: discriminator, generator"


class Pair(keras.Model):
    def __init__(self, discriminator, generator, **options):
        super().__init__(**options)
        self.discriminator, self.generator = discriminator, generator
        self.tracker = keras.metrics.Mean(name="loss")

    def train_step(self, *_):
        return {"loss": self.tracker.result()}


def critic():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", name="conv")(x)
    x = layers.LeakyReLU(negative_slope=0.2, name="leaky")(x)
    x = layers.Add(name="sum")([x, layers.Conv2D(16, 3, padding="same", name="branch")(layers.ReLU()(x))])
    return keras.Model(inputs, layers.Dense(1, name="head")(layers.GlobalMaxPooling2D()(x)), name="critic")


def maker():
    return keras.Sequential(
        [
            keras.Input((32,)),
            layers.Dense(4 * 4 * 8, name="dense"),
            layers.ReLU(name="relu"),
            layers.Reshape((4, 4, 8)),
            layers.Conv2DTranspose(16, 4, strides=2, padding="same", name="up"),
            layers.Conv2D(3, 3, padding="same", activation="tanh", name="image"),
        ],
        name="maker",
    )


def pair():
    return Pair(critic(), maker(), name="pair")


@pytest.mark.one_backend
def test_parts_are_traced_one_by_one_and_not_linked():
    model = pair()
    found = calls(model)
    paths = [call.path for call in found]
    assert {"critic/conv", "critic/sum", "critic", "maker/dense", "maker/image", "maker"} < set(paths)
    whole = found[-1]
    assert whole.layer is model
    assert [tensor.shape for tensor in whole.inputs] == [(None, 8, 8, 3), (None, 32)]
    assert [tensor.shape for tensor in whole.outputs] == [(None, 1), (None, 8, 8, 3)]
    image = whole.outputs[1]
    assert not readers(found).get(image)
    assert not model.built  # as before
    assert [branch.at for branch in residual_branches(model)] == ["critic/sum"]
    follows = {path: each.where for path, each in following_activations(model).items()}
    assert follows["maker/dense"] == "relu"
    assert follows["critic/head"] == "output"


@pytest.mark.one_backend
def test_a_part_that_cannot_be_traced_leaves_the_others():
    class Picky(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(shape[-1], 4), name="table")

        def call(self, x):
            raise TypeError("numbers only")

    picky = Picky(name="picky")
    picky.build((None, 3))
    model = Pair(picky, maker(), name="pair")
    assert "maker/dense" in {call.path for call in calls(model)}
    assert [kernel.role for kernel in kernels(model)] == ["unknown", "dense", "conv_transpose", "conv"]


def test_initialize_draws_the_parts():
    model = pair()
    alone = {kernel.variable.path: kernel.fans for part in (critic(), maker()) for kernel in kernels(part)}
    report = ik.initialize(model, "he_normal", seed=0)
    drawn = {f"{change.layer}/{change.name}": change for change in report.weights if change.role}
    assert len(drawn) == 6
    assert {change.fans for change in drawn.values()} == set(alone.values())
    assert not any(change.skipped for change in drawn.values())
    for change in drawn.values():  # the mean square of n normal draws has a relative standard error of sqrt(2 / n)
        assert change.scale == pytest.approx(2.0, rel=5 * np.sqrt(2 / np.prod(change.shape)))
    before = [keras.ops.convert_to_numpy(weight) for weight in model.discriminator.weights]
    report = ik.initialize(model, "orthogonal", layers="maker", seed=1)
    assert {change.layer.split("/")[0] for change in report.weights if not change.skipped} == {"maker"}
    for weight, value in zip(model.discriminator.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


@pytest.mark.one_backend
def test_what_needs_a_forward_pass_names_the_parts():
    model, x = pair(), np.zeros((2, 8, 8, 3), "float32")
    for verb in (
        lambda: ik.probe(model, x),
        lambda: ik.diagnose(model, x),
        lambda: ik.initialize(model, "he_normal", x),
        lambda: ik.initialize(model, "lsuv"),
        lambda: predict(model),
    ):
        with pytest.raises(ValueError, match=SENTENCE):
            verb()
    unbuilt = Pair(critic(), keras.Sequential([layers.Dense(3)]), name="pair")
    for verb in (lambda: ik.initialize(unbuilt, "he_normal"), lambda: calls(unbuilt)):
        with pytest.raises(ValueError, match=SENTENCE):
            verb()


@pytest.mark.one_backend
def test_a_student_is_measured_and_its_teacher_drawn():
    class Distiller(keras.Model):
        def __init__(self, student, teacher, **options):
            super().__init__(**options)
            self.teacher, self.student = teacher, student

        def call(self, x):
            return self.student(x)

    student = keras.Sequential([keras.Input((8,)), layers.Dense(16, "relu"), layers.Dense(3)], name="student")
    teacher = keras.Sequential([keras.Input((8,)), layers.Dense(32, "relu"), layers.Dense(3)], name="teacher")
    model = Distiller(student, teacher, name="distiller")
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    assert {row.tap.layer.split("/")[0] for row in ik.probe(model, x).rows if row.tap.kind == "output"} == {"student"}
    report = ik.initialize(model, "he_normal", x, seed=0)
    assert {change.layer.split("/")[0] for change in report.weights if change.role} == {"student", "teacher"}
