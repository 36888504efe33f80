"""`"mimetic"`: products of the kernels against their closed forms, whatever the layers keep them in."""

import keras
import numpy as np
import pytest
from keras import layers as L
from small_transformers import HEADS, WIDTH, encoder_decoder, language_model, named

import keras_initkit as ik

pytestmark = pytest.mark.one_backend


def matrices(model, name="b0_attention"):
    """Queries, keys and values of shape (width, heads, features), the output's kernel of shape (inner, width)."""
    held = {path: np.asarray(keras.ops.convert_to_numpy(w), "float64") for path, w in named(model).items()}
    if f"{name}/qkv/kernel" in held:
        parts = np.split(held[f"{name}/qkv/kernel"], 3, axis=1)
    else:
        own = {path.split("/")[1]: w for path, w in held.items() if path.startswith(name) and not path.endswith("bias")}
        parts = [own[each] for each in ("query", "key", "value")]
        if "attention_output" in own and own["query"].ndim == 3:
            return [*parts, own["attention_output"].reshape(-1, own["attention_output"].shape[-1])]
    out = next(w for path, w in held.items() if path.startswith(f"{name}/attention_output") and w.ndim > 1)
    return [*(part.reshape(WIDTH, HEADS, -1) for part in parts), out]


@pytest.mark.parametrize("kind", ["keras", "einsum", "matmul", "packed", "weights"])
def test_products(kind):
    model = language_model(2, kind=kind)
    report = ik.initialize(model, "mimetic", seed=1)
    query, key, value, out = matrices(model)
    product = value.reshape(WIDTH, -1) @ out
    # 0.4 Z - 0.4 I with Z of deviation 1/sqrt(d): mean and deviation of the diagonal, deviation of the others.
    noise = 0.4 / np.sqrt(WIDTH)
    assert np.diag(product).mean() == pytest.approx(-0.4, abs=5 * noise / np.sqrt(WIDTH))
    others = product[~np.eye(WIDTH, dtype=bool)]
    assert others.std() == pytest.approx(noise, rel=5 / np.sqrt(2 * others.size))
    # A head keeps the k largest singular values of 0.7 Z + 0.7 I; another head's keys know nothing of its queries.
    traces = np.array([[np.trace(query[:, h] @ key[:, g].T) for g in range(HEADS)] for h in range(HEADS)])
    own, other = np.diag(traces), traces[~np.eye(HEADS, dtype=bool)]
    assert own.min() > 3 * abs(other).max()
    for head in range(HEADS):  # both factors have the root of the singular values
        values = np.linalg.svd(query[:, head] @ key[:, head].T)[1]
        for factor in (query, key):
            np.testing.assert_allclose(np.linalg.svd(factor[:, head])[1] ** 2, values[: WIDTH // HEADS], rtol=1e-4)
    left = {path for path in report.skipped if "mlp" in path or "embedding" in path or "head" in path}
    assert "embedding/embeddings" in left
    assert report.skipped["embedding/embeddings"] == "it belongs to no attention that 'mimetic' sets"


def test_one_head_has_the_whole_product():
    inputs = keras.Input((6, 64))
    x = inputs + L.MultiHeadAttention(1, 64, name="attention")(inputs, inputs)
    model = keras.Model(inputs, L.Dense(3)(x))
    ik.initialize(model, "mimetic", seed=1, query_key=(0.1, 0.7))
    held = {path: np.asarray(keras.ops.convert_to_numpy(w), "float64") for path, w in named(model).items()}
    product = held["attention/query/kernel"][:, 0] @ held["attention/key/kernel"][:, 0].T
    others = product[~np.eye(64, dtype=bool)]
    assert np.diag(product).mean() == pytest.approx(0.7, abs=5 * 0.1 / 64)
    assert others.std() == pytest.approx(0.1 / 8, rel=5 / np.sqrt(2 * others.size))


def test_more_inner_units_than_features():
    inputs = keras.Input((6, 16))
    x = inputs + L.MultiHeadAttention(2, 24, name="attention")(inputs, inputs)
    model = keras.Model(inputs, L.Dense(3)(x))
    ik.initialize(model, "mimetic", seed=1, query_key=(0.0, 0.5), value_output=(0.0, 0.3))
    held = {path: np.asarray(keras.ops.convert_to_numpy(w), "float64") for path, w in named(model).items()}
    value, out = (
        held["attention/value/kernel"].reshape(16, -1),
        held["attention/attention_output/kernel"].reshape(-1, 16),
    )
    np.testing.assert_allclose(value @ out, -0.3 * np.eye(16), atol=1e-6)
    for head in range(2):
        product = held["attention/query/kernel"][:, head] @ held["attention/key/kernel"][:, head].T
        np.testing.assert_allclose(product, 0.5 * np.eye(16), atol=1e-6)
    assert (abs(value).max(axis=0) > 0).all()  # no unit is dead


def test_what_cannot_be_set_is_named():
    model = encoder_decoder(1, 1, kind="einsum")
    report = ik.initialize(model, "mimetic", seed=1)
    assert [note for note in report.notes if "d0_cross" in note] == [
        "Left as it is: d0_cross, it reads another sequence."
    ]
    with pytest.raises(
        ValueError, match=r"mimetic: no attention of transformer can be set. .*: several heads share their k"
    ):
        ik.initialize(language_model(1, kind="grouped"), "mimetic")
