"""Roles of a transformer's weights, from the trace alone, against what the layers' names say."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from small_transformers import (
    WIDTH,
    Own,
    Positions,
    blocks,
    encoder_decoder,
    language_model,
    named,
    role_by_name,
    tied_head,
)

from keras_initkit.structure._attention_units import head_units
from keras_initkit.structure._calls import calls, traced_once
from keras_initkit.structure._transformer_roles import TransformerRoles

pytestmark = pytest.mark.one_backend


def units_of(model):
    with traced_once():
        (attention,) = TransformerRoles(model).attentions
        return head_units(calls(model), attention)


def roles_of(model):
    roles = TransformerRoles(model)
    return {path: str(roles[weight]) for path, weight in named(model).items()}


@pytest.mark.parametrize("kind", ["keras", "grouped", "einsum", "matmul", "packed", "weights"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_weight_has_the_role_that_its_name_says(kind, norm):
    found = roles_of(language_model(kind=kind, norm=norm))
    assert found == {path: role_by_name(path) for path in found}


@pytest.mark.parametrize("feed", ["gated", "experts"])
def test_gates_and_experts(feed):
    model = language_model(kind="matmul", feed=feed)
    found = roles_of(model)
    assert found == {path: role_by_name(path) for path in found}
    roles = TransformerRoles(model)
    assert {str(roles[w]) for w in model.weights if roles[w].writes} == {
        "attention output", "expert out" if feed == "experts" else "mlp out",
    }  # fmt: skip


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("kind", ["keras", "einsum"])
def test_encoder_and_decoder_have_a_stream_each(kind, norm):
    model = encoder_decoder(3, 2, kind=kind, norm=norm)
    found = roles_of(model)
    assert found == {path: role_by_name(path) for path in found}
    roles = TransformerRoles(model)
    assert roles.writes == [6, 6]  # two of three blocks, three of two blocks
    assert roles.sources == {1: {0}}
    for path, weight in named(model).items():
        if "/kernel" in path and path[0] in "ed" and path[1].isdigit():
            assert (roles[weight].stream, roles[weight].cross) == (int(path[0] == "d"), "cross" in path)


def test_a_block_that_adds_both_at_once_writes_twice():
    inputs = keras.Input((6, WIDTH))
    x = inputs
    for number in range(3):
        h = L.LayerNormalization()(x)
        fed = L.Dense(WIDTH, name=f"b{number}_mlp_out")(L.Dense(64, "gelu", name=f"b{number}_mlp_in")(h))
        x = x + (Own("packed", name=f"b{number}_attention")(h) + fed)
    model = keras.Model(inputs, L.Dense(3, name="head")(L.LayerNormalization()(x)))
    assert TransformerRoles(model).writes == [6]
    found = roles_of(model)
    assert found == {path: role_by_name(path) for path in found}


def test_a_tied_table_patches_tokens_and_kernels_outside_of_the_branches():
    class Token(L.Layer):
        def build(self, shape):
            self.token = self.add_weight((1, 1, WIDTH), name="token")

        def call(self, x):
            return ops.concatenate([ops.broadcast_to(self.token, (ops.shape(x)[0], 1, WIDTH)), x], axis=1)

    images = keras.Input((16, 16, 3))
    x = L.Reshape((16, WIDTH))(L.Conv2D(WIDTH, 4, strides=4, name="patches")(images))
    x = Positions(name="positions")(Token(name="class_token")(x))
    x = L.Dense(WIDTH, "gelu", name="pool")(blocks(x, 1, kind="matmul")[:, 0])
    found = roles_of(keras.Model(images, L.Dense(3, name="head")(L.LayerNormalization(name="last")(x))))
    assert {path: role for path, role in found.items() if not path.startswith(("b0", "layer"))} == {
        "patches/kernel": "projection", "patches/bias": "bias", "class_token/token": "token",
        "positions/position": "position embedding", "pool/kernel": "projection", "pool/bias": "bias",
        "last/gamma": "gain", "last/beta": "bias", "head/kernel": "head", "head/bias": "bias",
    }  # fmt: skip
    tokens = keras.Input((6,), dtype="int32")
    table = L.Embedding(50, WIDTH, name="table")
    tied = keras.Model(tokens, tied_head(table)(blocks(table(tokens), 1)))
    assert roles_of(tied)["table/embeddings"] == "tied embedding"


@pytest.mark.parametrize("kind", ["keras", "einsum", "matmul", "packed", "weights"])
def test_units_of_heads(kind):
    """Setting one unit of the values reaches the inputs of the output's kernel that `output` says."""
    model = language_model(1, kind=kind)
    units = units_of(model)
    size = WIDTH // 4
    first = {"packed": {"query": 0, "key": WIDTH, "value": 2 * WIDTH}}.get(kind, {"query": 0, "key": 0, "value": 0})
    expected = np.arange(WIDTH).reshape(4, size)
    for name, start in first.items():
        np.testing.assert_array_equal(getattr(units, name), start + expected)
    np.testing.assert_array_equal(units.output, np.arange(WIDTH))


def test_units_of_heads_behind_a_transpose():
    """Heads on the last axis: unit u is feature u // heads of head u % heads."""
    inputs = keras.Input((6, WIDTH))
    q, k, v = (L.Dense(WIDTH, name=name)(inputs) for name in ("query", "key", "value"))
    q, k, v = (ops.transpose(ops.reshape(each, (-1, 6, 8, 4)), (0, 3, 1, 2)) for each in (q, k, v))
    mixed = ops.matmul(ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))), v)  # (b, 4 heads, 6, 8)
    mixed = ops.reshape(ops.transpose(mixed, (0, 2, 3, 1)), (-1, 6, WIDTH))
    model = keras.Model(inputs, inputs + L.Dense(WIDTH, name="out")(mixed))
    units = units_of(model)
    unit = np.arange(WIDTH)
    np.testing.assert_array_equal(units.value, unit.reshape(8, 4).T)
    np.testing.assert_array_equal(units.output, unit % 4 * 8 + unit // 4)
