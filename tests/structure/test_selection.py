"""Which layers `layers=` means."""

import re

import keras
import pytest
from keras import layers as L

from keras_initkit.structure import weighted_layers
from keras_initkit.structure._selection import select


@pytest.fixture(scope="module")
def model():
    block = keras.Sequential([keras.Input((4,)), L.Dense(4, name="a"), L.Dense(4, name="b")], name="block")
    inputs = keras.Input((3, 4))
    x = L.MultiHeadAttention(1, 4, name="attention")(inputs, inputs)
    x = block(L.GlobalAveragePooling1D(name="pool")(x))
    return keras.Model(inputs, L.Dense(2, name="head")(x))


ATTENTION = ["attention/attention_output", "attention/key", "attention/query", "attention/value"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, [*ATTENTION, "block/a", "block/b", "head"]),
        ("head", ["head"]),
        ("block", ["block/a", "block/b"]),
        ("block/a", ["block/a"]),
        ("b", ["block/b"]),
        ("attention", ATTENTION),
        (re.compile("key|query"), ["attention/key", "attention/query"]),
        (re.compile("^b"), ["block/a", "block/b"]),
        (lambda layer: isinstance(layer, L.Dense), ["block/a", "block/b", "head"]),
        (["head", re.compile("value$")], ["attention/value", "head"]),
    ],
)
def test_ways_to_choose(model, chosen, expected):
    assert sorted(select(weighted_layers(model), chosen)) == expected


def test_a_layer_itself_and_a_nested_model(model):
    layers = weighted_layers(model)
    assert list(select(layers, model.get_layer("head"))) == ["head"]
    assert list(select(layers, model.get_layer("block"))) == ["block/a", "block/b"]
    assert sorted(select(layers, model.get_layer("attention"))) == ATTENTION


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("haed", "layers: got 'haed', which matches no layer with weights; near names: head"),
        ("pool", "layers: got 'pool', which matches no layer with weights"),
        (
            ["head", re.compile("decoder")],
            r"layers: got re.compile\('decoder'\), which matches no layer with weights; known: attention",
        ),
        (lambda layer: False, "matches no layer with weights; known: "),
        (L.Dense(1), "matches no layer with weights"),
        ([], r"layers: got \[\], expected at least one layer, or None for all"),
        (
            L.Dense,
            "layers: got <class '.*Dense'>, expected a name, a compiled regular expression, a layer, a predicate",
        ),
        (3, "layers: got 3, expected a name, a compiled regular expression, a layer, a predicate"),
    ],
)
def test_what_fits_nothing_is_an_error(model, chosen, message):
    with pytest.raises(ValueError, match=message):
        select(weighted_layers(model), chosen)
