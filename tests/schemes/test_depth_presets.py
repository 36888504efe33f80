"""`"deepnorm"` and `"subln"`: the papers' constants, and a float64 transformer that multiplies by alpha itself."""

import keras
import numpy as np
import pytest
from keras import layers as L
from scipy import special
from small_transformers import HEADS, LENGTH, WIDTH, WORDS, blocks, encoder_decoder, language_model, named, role_by_name

import keras_initkit as ik

pytestmark = pytest.mark.one_backend

SCALED = ("value", "attention output", "mlp in", "gate", "mlp out", "expert in", "expert gate", "expert out")


def array(weight):
    return np.asarray(keras.ops.convert_to_numpy(weight), "float64")


def check_deviation(values, stddev):
    assert values.std() == pytest.approx(stddev, rel=5 / np.sqrt(2 * values.size))


def fans(path, weight):
    """Of one Xavier matrix, as the papers' code has it: heads and features of Keras' attention belong together."""
    shape = tuple(weight.shape)
    if len(shape) == 3 and "attention_output" in path:
        return shape[0] * shape[1], shape[2]
    if len(shape) == 3 and "expert" not in path:
        return shape[0], shape[1] * shape[2]
    return shape[-2], shape[-1]


@pytest.mark.parametrize("kind", ["keras", "einsum", "weights"])
@pytest.mark.parametrize("feed", ["plain", "experts"])
def test_deepnorm_of_one_stream(kind, feed):
    count = 3
    model = language_model(count, kind=kind, norm="post", feed=feed)
    report = ik.initialize(model, "deepnorm", seed=1)
    alpha, beta = (2 * count) ** 0.25, (8 * count) ** -0.25
    for path, weight in named(model).items():
        role = role_by_name(path)
        if role in ("embedding", "head"):
            check_deviation(array(weight), 0.02)
        elif role in (*SCALED, "query", "key", "router"):
            gain = beta if role in SCALED else 1
            gain /= alpha if role in ("attention output", "mlp out", "expert out") else 1
            check_deviation(array(weight), gain * np.sqrt(2 / sum(fans(path, weight))))
    (note,) = [note for note in report.notes if "alpha" in note]
    assert note.startswith(f"Stream 0: alpha {alpha:.3g}, beta {beta:.3g}. LN(alpha x + f(x)) = LN(x + f(x) / alpha)")
    assert "6 kernels that write into it are divided by alpha" in note


def test_deepnorm_of_encoder_and_decoder():
    n, m = 4, 2
    model = encoder_decoder(n, m, norm="post")
    ik.initialize(model, "deepnorm", seed=1)
    constants = {
        "e": (0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16)),
        "d": ((3 * m) ** 0.25, (12 * m) ** -0.25),
    }
    for path, weight in named(model).items():
        role = role_by_name(path)
        if role in SCALED:
            alpha, beta = constants[path[0]]
            gain = beta / (alpha if role in ("attention output", "mlp out") else 1)
            check_deviation(array(weight), gain * np.sqrt(2 / sum(fans(path, weight))))
        elif role in ("query", "key"):
            check_deviation(array(weight), np.sqrt(2 / sum(fans(path, weight))))


def test_of_a_packed_kernel_only_the_values_are_scaled():
    model = language_model(8, kind="packed", norm="post")
    ik.initialize(model, "deepnorm", seed=1)
    for path, weight in named(model).items():
        if path.endswith("qkv/kernel"):
            q, k, v = np.split(array(weight), 3, axis=1)
            for part, gain in ((q, 1), (k, 1), (v, 64**-0.25)):
                check_deviation(part, gain * np.sqrt(2 / (WIDTH + WIDTH)))


def normalized(x, epsilon):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon)


def test_alpha_in_the_weights_is_alpha_on_the_stream():
    """The paper's own forward pass, LN(alpha x + f(x)), with the kernels before their division by alpha."""
    count = 6
    model = language_model(count, kind="einsum", norm="post")
    ik.initialize(model, "deepnorm", seed=1)
    alpha, weights = (2 * count) ** 0.25, {path: array(weight) for path, weight in named(model).items()}
    tokens = np.random.default_rng(0).integers(0, WORDS, (4, LENGTH))
    x = weights["embedding/embeddings"][tokens] + weights["positions/position"]
    for number in range(count):
        q, k, v = (
            (x @ weights[f"b{number}_attention/{name}/kernel"]).reshape(4, LENGTH, HEADS, -1)
            for name in ("query", "key", "value")
        )
        mixing = special.softmax(np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(WIDTH // HEADS), axis=-1)
        mixed = np.einsum("bhqk,bkhd->bqhd", mixing, v).reshape(4, LENGTH, WIDTH)
        written = mixed @ (alpha * weights[f"b{number}_attention/attention_output/kernel"])
        x = normalized(alpha * x + written, 1e-6 * alpha**2)
        hidden = np.maximum(x @ weights[f"b{number}_mlp_in/kernel"], 0)
        x = normalized(alpha * x + hidden @ (alpha * weights[f"b{number}_mlp_out/kernel"]), 1e-6 * alpha**2)
    expected = x @ weights["head/kernel"]
    np.testing.assert_allclose(model.predict(tokens, verbose=0), expected, rtol=1e-3, atol=1e-5)


def test_a_bias_that_ends_a_branch_is_divided_too():
    inputs = keras.Input((6, WIDTH))
    x = L.LayerNormalization()(
        inputs + L.MultiHeadAttention(2, 16, bias_initializer="ones", name="attention")(inputs, inputs)
    )
    last = L.Dense(WIDTH, bias_initializer="ones", name="last")
    x = L.LayerNormalization()(x + last(L.Dense(64, "relu", bias_initializer="ones", name="first")(x)))
    model = keras.Model(inputs, L.Dense(3)(x))
    ik.initialize(model, "deepnorm", seed=0)
    alpha = 2**0.25
    np.testing.assert_allclose(array(last.bias), 1 / alpha, rtol=1e-6)
    np.testing.assert_allclose(array(model.get_layer("first").bias), 1)
    np.testing.assert_allclose(array(named(model)["attention/attention_output/bias"]), 1 / alpha, rtol=1e-6)
    np.testing.assert_allclose(array(named(model)["attention/value/bias"]), 1)


def test_deepnorm_wants_post_norm():
    with pytest.raises(
        ValueError, match=r"deepnorm: the sum '.*' is read by '.*' without a normalization, expected a po"
    ):
        ik.initialize(language_model(2), "deepnorm")
    inputs = keras.Input((6, WIDTH))
    x = blocks(inputs, 1, norm="post")
    bare = keras.Model(inputs, x + L.Dense(WIDTH)(L.Dense(WIDTH)(x)))
    with pytest.raises(ValueError, match=r"deepnorm: the sum '.*' is the model's output without a normalization"):
        ik.initialize(bare, "deepnorm")


def test_subln_of_one_stream():
    count = 4
    model = language_model(count, kind="einsum", norm="sub")
    report = ik.initialize(model, "subln", seed=1)
    gamma = np.sqrt(np.log(2 * count))
    for path, weight in named(model).items():
        role = role_by_name(path)
        if role in (*SCALED, "query", "key"):
            check_deviation(array(weight), (gamma if role in SCALED else 1) * np.sqrt(2 / sum(fans(path, weight))))
    assert f"Stream 0: gamma {gamma:.3g}." in report.notes


def test_subln_of_encoder_and_decoder():
    n, m = 3, 2
    model = encoder_decoder(n, m, kind="einsum", norm="sub")
    ik.initialize(model, "subln", seed=1)
    gammas = {"e": np.sqrt(np.log(3 * m) * np.log(2 * n) / 3), "d": np.sqrt(np.log(3 * m))}
    for path, weight in named(model).items():
        role = role_by_name(path)
        if role in SCALED:
            gamma = 1 if "cross" in path else gammas[path[0]]
            check_deviation(array(weight), gamma * np.sqrt(2 / sum(fans(path, weight))))


def test_subln_wants_a_normalization_inside():
    with pytest.raises(
        ValueError, match=r"subln: '.*' \(attention output\) reads what is not normalized, expected a n"
    ):
        ik.initialize(language_model(2), "subln")
