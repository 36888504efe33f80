"""Language models start as a guess, whatever scheme draws them, and what holds two uses is drawn for both."""

import math

import keras
import numpy as np
import pytest
from helpers import values
from keras import layers, ops

import keras_initkit as ik

VOCABULARY, WIDTH, LENGTH = 200, 64, 16
TEXT = np.random.default_rng(0).integers(0, VOCABULARY, (32, LENGTH + 1))


class Table(layers.Layer):
    """A table that is looked up, and multiplied by what comes out."""

    def build(self, shape):
        self.rows = self.add_weight(shape=(VOCABULARY, WIDTH), initializer="random_normal", name="rows")

    def call(self, x, reverse=False):
        return ops.matmul(x, ops.transpose(self.rows)) if reverse else ops.take(self.rows, x, axis=0)


class Head(layers.Layer):
    """Holds the weight of another layer."""

    def __init__(self, rows, **options):
        super().__init__(**options)
        self.rows = rows

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.rows))


def language_model(kind, scale=1.0):
    tokens = keras.Input((LENGTH,), dtype="int32")
    if kind == "embedding and head":
        table = layers.Embedding(VOCABULARY, WIDTH, name="table")
        hidden = table(tokens)
        head = Head(table.embeddings)
    else:
        table = Table(name="table") if kind == "own" else layers.ReversibleEmbedding(VOCABULARY, WIDTH, name="table")
        hidden = table(tokens)

        def head(x):
            return table(x, reverse=True)

    hidden = scale * hidden
    inner = layers.Dense(4 * WIDTH, "gelu")(layers.LayerNormalization()(hidden))
    hidden = hidden + layers.Dense(WIDTH)(inner)
    model = keras.Model(tokens, head(layers.LayerNormalization()(hidden)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


KINDS = ["own", "embedding and head"] + ["reversible"] * hasattr(layers, "ReversibleEmbedding")


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [*(("own", scheme) for scheme in ("auto", "lsuv", "reset")), *((kind, "he_normal") for kind in KINDS)],
)
def test_the_loss_starts_near_that_of_a_guess(kind, scheme):
    for scale in (1.0, math.sqrt(WIDTH))[kind != "own" :]:  # as Vaswani et al. (2017) and Gemma scale it
        keras.utils.set_random_seed(0)
        model = language_model(kind, scale)
        report = ik.initialize(model, scheme, TEXT[:, :-1], seed=0)
        assert not [name for name in report.skipped if name.startswith("table/")]
        loss = model.evaluate(TEXT[:, :-1], TEXT[:, 1:], verbose=0)
        assert loss < 1.2 * math.log(VOCABULARY)
        if scheme == "he_normal":
            (change,) = (each for each in report.kernels if each.layer == "table")
            assert (change.role, change.fans, change.stddev_after) == (
                "embedding",
                (WIDTH, VOCABULARY),
                pytest.approx(math.log(VOCABULARY) / WIDTH, rel=0.05),  # below 1 / 8
            )


def test_a_table_of_a_part_that_is_transposed_in_the_call_around_it():
    class Around(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.words = layers.Embedding(VOCABULARY, WIDTH, name="words")

        def build(self, shape):
            self.words.build(shape)

        def call(self, x):
            return ops.matmul(self.words(x), ops.transpose(self.words.embeddings))

    tokens = keras.Input((LENGTH,), dtype="int32")
    model = keras.Model(tokens, Around(name="around")(tokens))
    (change,) = ik.initialize(model, "he_normal", seed=0).kernels
    assert change.fans == (WIDTH, VOCABULARY)
    assert change.stddev_after == pytest.approx(math.log(VOCABULARY) / WIDTH, rel=0.05)


def test_a_distribution_without_a_scale_is_drawn_as_it_is():
    model = language_model("own")
    ik.initialize(model, keras.initializers.RandomNormal(stddev=0.02), seed=0)
    assert values(model.get_layer("table").rows).std() == pytest.approx(0.02, rel=0.05)


def test_lora_and_quantized_layers_are_left_alone_and_named():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="adapted"), layers.Dense(8, name="packed")])
    model.add(layers.Dense(2, name="head"))
    if not hasattr(model.layers[0], "enable_lora"):
        pytest.skip("LoRA came after this Keras")
    model.get_layer("adapted").enable_lora(2)
    free = "head/"
    if hasattr(model.get_layer("packed"), "quantization_mode"):
        model.get_layer("packed").quantize("int8")
    else:  # before Keras 3.4 a layer does not say that it is quantized
        free = ("head/", "packed/")
    before = {weight.path: values(weight) for weight in model.weights}
    for scheme in ("he_normal", "auto", "lsuv", "reset"):
        report = ik.initialize(model, scheme, np.random.default_rng(0).normal(size=(32, 8)), seed=0)
        assert "LoRA" in report.skipped["adapted/lora_kernel_a"]
        for weight in model.weights:
            if not weight.path.partition("/")[2].startswith(free):
                np.testing.assert_array_equal(values(weight), before[weight.path], err_msg=weight.path)
