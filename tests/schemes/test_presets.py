"""`"gpt2"` and `"nanochat"`: deviations by role, by the closed forms of the published code."""

import re

import keras
import numpy as np
import pytest
from keras import layers as L
from small_transformers import WIDTH, WORDS, blocks, encoder_decoder, language_model, named, role_by_name, tied_head

import keras_initkit as ik

pytestmark = pytest.mark.one_backend


def array(weight):
    return np.asarray(keras.ops.convert_to_numpy(weight), "float64")


def check_normal(values, stddev):
    """Mean and deviation to five standard errors, and as many beyond two deviations as a normal one has."""
    n = values.size
    assert abs(values.mean()) < 5 * stddev / np.sqrt(n)
    assert values.std() == pytest.approx(stddev, rel=5 / np.sqrt(2 * n))
    assert np.mean(abs(values) > 2 * stddev) == pytest.approx(0.0455, abs=5 * np.sqrt(0.0455 / n))


def check_uniform(values, stddev):
    n = values.size
    assert abs(values).max() <= np.sqrt(3) * stddev * (1 + 1e-6)
    assert values.std() == pytest.approx(stddev, rel=5 * np.sqrt((1.8 - 1) / (4 * n)))


@pytest.mark.parametrize("kind", ["keras", "grouped", "einsum", "packed", "weights"])
def test_gpt2_by_role(kind):
    model = language_model(3, kind=kind)
    before = {path: array(weight) for path, weight in named(model).items()}
    report = ik.initialize(model, "gpt2", seed=1)
    for path, weight in named(model).items():
        role = role_by_name(path)
        if role == "gain":
            np.testing.assert_array_equal(array(weight), before[path])
        elif role == "bias":
            assert not array(weight).any()
        else:
            writes = role in ("attention output", "mlp out")
            stddev = 0.01 if role == "position embedding" else 0.02 / (np.sqrt(6) if writes else 1)
            check_normal(array(weight), stddev)
    notes = {f"{change.layer}/{change.name}": change.note for change in report.weights}
    assert all(note.startswith(role_by_name(path)) for path, note in notes.items())
    assert {note for path, note in notes.items() if "mlp_out/kernel" in path} == {"mlp out, 1/sqrt(6)"}
    assert "Additions to the residual stream: 6." in report.notes


def test_gpt2_counts_each_stream():
    model = encoder_decoder(4, 2)
    report = ik.initialize(model, "gpt2", seed=1, stddev=0.1)
    for path, weight in named(model).items():
        if role_by_name(path) in ("attention output", "mlp out"):
            check_normal(array(weight), 0.1 / np.sqrt(8 if path.startswith("e") else 6))
    assert "Additions to the residual streams: 8, 6." in report.notes


@pytest.mark.parametrize("feed", ["plain", "gated", "experts"])
def test_nanochat_by_role(feed):
    model = language_model(2, kind="matmul", feed=feed)
    ik.initialize(model, "nanochat", seed=1)
    for path, weight in named(model).items():
        role, values = role_by_name(path), array(weight)
        if role in ("attention output", "mlp out", "expert out"):
            assert not values.any()
        elif role in ("query", "key", "value", "router"):
            check_uniform(values, WIDTH**-0.5)
        elif role in ("mlp in", "gate", "expert in", "expert gate"):
            check_uniform(values, 0.4 * WIDTH**-0.5)
        elif role in ("embedding", "head"):
            check_normal(values, {"embedding": 0.8, "head": 0.001}[role])


def test_nanochat_starts_as_a_guess_tied_or_not():
    """Zero output projections leave the embedding: the logits are a table's products with its normalized rows."""
    tokens = keras.Input((6,), dtype="int32")
    table = L.Embedding(WORDS, WIDTH, name="table")
    model = keras.Model(tokens, tied_head(table)(blocks(table(tokens), 2)))
    ik.initialize(model, "nanochat", seed=1)
    rows = array(table.embeddings)
    check_normal(rows, min(0.02, np.log(WORDS) / (2 * WIDTH)))
    x = np.arange(12).reshape(2, 6)
    centred = rows[x] - rows[x].mean(axis=-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) @ rows.T
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    assert np.log(np.exp(expected).sum(axis=-1)).mean() == pytest.approx(np.log(WORDS), rel=0.05)


def plain():
    return keras.Sequential([keras.Input((8,)), L.Dense(4, "relu"), L.Dense(2)], name="plain")


def without_stream():
    inputs = keras.Input((6, WIDTH))
    return keras.Model(inputs, L.MultiHeadAttention(2, 16, name="attention")(inputs, inputs), name="alone")


@pytest.mark.parametrize("scheme", ["gpt2", "nanochat", "deepnorm", "subln", "mimetic"])
def test_models_that_are_no_transformers_are_refused(scheme):
    with pytest.raises(ValueError, match=f"{scheme}: plain has no attention, .*, expected a transformer. 'auto'"):
        ik.initialize(plain(), scheme)
    if scheme != "mimetic":
        with pytest.raises(ValueError, match=f"{scheme}: alone has no residual stream, .*, expected a transformer"):
            ik.initialize(without_stream(), scheme)


@pytest.mark.parametrize(
    ("scheme", "options", "message"),
    [
        ("gpt2", {"stddev": -0.02}, "stddev: got -0.02, expected a standard deviation, a number from 0"),
        ("gpt2", {"positions": "small"}, "positions: got 'small', expected a standard deviation"),
        ("nanochat", {"mlp": float("nan")}, "mlp: got nan, expected a standard deviation"),
        ("deepnorm", {"head": None}, "head: got None, expected a standard deviation"),
        ("gpt2", {"sd": 1.0}, "sd: 'gpt2' has no such option; it has 'stddev', 'positions'"),
        ("mimetic", {"query_key": 0.7}, "query_key: got 0.7, expected two numbers, the scales of noise and identity"),
        ("mimetic", {"value_output": (0.4, "x")}, r"value_output: got \(0.4, 'x'\), expected two numbers"),
    ],
)
def test_bad_options(scheme, options, message):
    with pytest.raises(ValueError, match=message):
        ik.initialize(language_model(1), scheme, **options)


@pytest.mark.parametrize("scheme", ["gpt2", "nanochat", "mimetic"])
def test_what_layers_leaves_out_stays(scheme):
    model = language_model(2)
    before = {path: array(weight) for path, weight in named(model).items()}
    ik.initialize(model, scheme, seed=1, layers=re.compile("^b0"))
    changed = {path for path, weight in named(model).items() if (array(weight) != before[path]).any()}
    assert changed
    assert all(path.startswith("b0") for path in changed), changed
