"""The list of findings: a list that prints as one story, and whose consequences follow the edges of the graph."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest

from keras_initkit import diagnose
from keras_initkit.diagnosis import Finding, Findings, ModelContext
from keras_initkit.diagnosis._order import order_findings

L = keras.layers
X = np.random.default_rng(0).standard_normal((64, 16)).astype("float32")


def finding(kind, layer, cause=None, **fields):
    fields = {"severity": "error", "evidence": {"figure": np.float32(1.5)}, "remedy": "Change it.", **fields}
    of, where = cause or ("", "")
    return Finding(kind, layer, 0, consequence_of=of, caused_in=where, **fields)


INPUT = finding("unscaled_input", "a")
SATURATED = [finding("saturated_units", layer, ("unscaled_input", "a")) for layer in "bc"]
GRADIENT = finding("vanishing_gradient", "a", ("saturated_units", "b"))
OTHER = finding("frozen_weights", "z", severity="warning", message="It is cut off.")
ALL = Findings([INPUT, OTHER, *SATURATED, GRADIENT])


def test_the_first_cause_is_printed_in_full_and_the_others_in_a_line():
    assert str(ALL) == (
        "error: unscaled_input in a at step 0 (confidence 1.00)\n  figure 1.5\n  Change it.\n"
        "  + 3 that follow: saturated_units in b, c; vanishing_gradient in a\n"
        "warning: frozen_weights in z at step 0: It is cut off."
    )
    assert str(Findings([GRADIENT, INPUT])) == (  # the cause between them is not in the list
        "error: unscaled_input in a at step 0 (confidence 1.00)\n  figure 1.5\n  Change it.\n"
        "+ 1 that follows from saturated_units in b: vanishing_gradient in a"
    )
    assert str(Findings()) == "Nothing is wrong."


def test_what_follows_belongs_to_its_own_cause():
    other = finding("unscaled_input", "other")
    findings = Findings([INPUT, other, *SATURATED, GRADIENT])
    assert findings.causes == [INPUT, other]
    assert findings.consequences_of(INPUT) == [*SATURATED, GRADIENT]
    assert findings.consequences_of(other) == []


def test_it_is_a_list():
    assert list(ALL) == ALL
    assert [*ALL] == [INPUT, OTHER, *SATURATED, GRADIENT]
    assert isinstance(ALL[1:], Findings)
    assert ALL[1:] == [OTHER, *SATURATED, GRADIENT]
    assert ALL[-1] is GRADIENT
    assert sorted(ALL, key=lambda each: each.layer)[0] is INPUT
    changed = copy.copy(ALL)
    changed.sort(key=lambda each: each.layer)
    changed += [OTHER]
    assert (type(changed), len(changed)) == (Findings, 6)
    assert repr(Findings()) == "<Findings: nothing is wrong>"
    assert pickle.loads(pickle.dumps(ALL)) == ALL


def test_html_is_escaped_and_folds_what_follows():
    hostile = finding("unscaled_input", "<script>", message='x = "<b>"')
    page = Findings([hostile, *[finding("dead_units", "<i>", ("unscaled_input", "<script>"))]])._repr_html_()
    assert "<script>" not in page
    assert "<i>" not in page
    assert "&lt;script&gt;" in page
    assert "<summary>+ 1 that follows</summary>" in page
    assert "Nothing is wrong." in Findings()._repr_html_()


def test_dictionaries_are_plain():
    first = json.loads(json.dumps(ALL.to_dict()))["findings"][0]
    assert first == {
        "kind": "unscaled_input",
        "layer": "a",
        "step": 0,
        "severity": "error",
        "evidence": {"figure": 1.5},
        "remedy": "Change it.",
        "confidence": 1.0,
        "consequence_of": "",
        "message": "",
        "caused_in": "",
    }


def test_a_confidence_below_one_is_not_printed_as_one():
    assert "(confidence 0.99)" in str(finding("dead_units", "a", confidence=0.9999))


def test_apply_is_repair():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((16,)), L.Dense(8, "relu", kernel_initializer="zeros", name="a"), L.Dense(2)])
    report = diagnose(model, X).apply(model, X)
    assert report.notes[0].startswith("repair: a/kernel re-initialized for symmetric_units")
    assert diagnose(model, X) == []


def towers():
    """Two towers `a` and `b` that are joined, and a head."""
    inputs = L.Input((16,))
    ends = []
    for tower in "ab":
        x = inputs
        for number in range(3):
            x = L.Dense(16, "relu", name=f"{tower}{number}")(x)
        ends.append(x)
    return keras.Model(inputs, L.Dense(2, name="head")(L.Concatenate(name="both")(ends)))


@pytest.mark.parametrize(
    ("cause", "layer", "kind", "expected"),
    [
        ("a0", "a1", "saturated_units", True),
        ("a0", "b1", "saturated_units", False),  # parallel
        ("b0", "a2", "saturated_units", False),
        ("a2", "a1", "saturated_units", False),  # behind it
        ("a0", "both", "saturated_units", True),
        ("a2", "a0", "vanishing_gradient", True),  # gradients go back
        ("a0", "a2", "vanishing_gradient", True),
        ("b2", "a0", "vanishing_gradient", False),
        ("b0", "a2", "vanishing_gradient", False),
    ],
)
def test_consequences_follow_the_edges_of_the_graph(cause, layer, kind, expected):
    model = towers()
    names = [each.name for each in model.layers]
    found = order_findings([finding("initializer_mismatch", cause), finding(kind, layer)], names, ModelContext(model))
    (followed,) = [each for each in found if each.kind == kind]
    assert (followed.consequence_of, followed.caused_in) == (("initializer_mismatch", cause) if expected else ("", ""))


def test_of_one_kind_only_what_lies_on_its_way_follows():
    model, context = towers(), ModelContext(towers())
    names = [each.name for each in model.layers]
    for kind, first, then in (("dead_units", "a0", "a1"), ("vanishing_gradient", "a1", "a0")):
        found = order_findings([finding(kind, first), finding(kind, then), finding(kind, "b1")], names, context)
        assert {each.layer: each.caused_in for each in found} == {first: "", then: first, "b1": ""}


def test_layers_inside_others_are_on_the_way():
    inner = keras.Sequential([L.Input((16,)), L.Dense(16, name="first"), L.Dense(16, name="second")], name="inner")
    inputs = L.Input((16,))
    context = ModelContext(keras.Model(inputs, L.Dense(2, name="head")(inner(L.Dense(16, name="before")(inputs)))))
    assert context.reaches("before", "inner/first")
    assert context.reaches("inner/second", "head")
    assert context.reaches("before", "inner")
    assert context.reaches("inner/first", "inner")
    assert not context.reaches("head", "inner/first")
    assert not context.reaches("inner/second", "inner/first")
    assert context.reaches("before", "elsewhere") is None
