"""Which finding explains which: every pair of kinds in the causes of the rules."""

import pytest

from keras_initkit.diagnosis import KINDS, Finding
from keras_initkit.diagnosis._order import order_findings
from keras_initkit.diagnosis._rule_registry import RULES

LAYERS = ("a", "b", "c", "d")
SCALE = ("constant_input", "unscaled_input", "wrong_fans", "initializer_mismatch", "update_too_large")
IDLE = ("symmetric_units", "saturated_units", "dead_units")
HEAD = ("softmax_of_one", "head_loss_mismatch")
TASK = ("constant_input", *HEAD, "label_mismatch", "target_out_of_range", "normalization_of_one")
# What each kind follows from, said once more: a cause that is added to a rule, or taken from it, needs a line here.
CAUSES = {
    "softmax_of_one": ("constant_input",),
    "head_loss_mismatch": ("constant_input",),
    "label_mismatch": HEAD,
    "target_out_of_range": HEAD,
    "normalization_of_one": ("constant_input",),
    "exploding_activation": SCALE,
    "vanishing_activation": (*SCALE, *IDLE),
    "saturated_units": (*SCALE, "exploding_activation", "symmetric_units"),
    "dead_units": (*SCALE, "symmetric_units"),
    "rank_collapse": (*SCALE, *IDLE, "vanishing_activation"),
    "constant_output": (*TASK, *IDLE, "update_too_large", "vanishing_activation"),
    "exploding_gradient": (*TASK, *SCALE, "exploding_activation"),
    "vanishing_gradient": (*TASK, *SCALE, *IDLE, "constant_output", "vanishing_activation"),
    "frozen_weights": (*TASK, *IDLE, "constant_output"),
    "update_too_small": (*TASK, *IDLE, "constant_output", "vanishing_gradient"),
    "collapsed_attention": (*SCALE, "exploding_activation"),
    "query_key_frozen": ("collapsed_attention",),
    "uniform_attention": ("query_key_frozen", "vanishing_activation"),
    "nonfinite": (*TASK, *SCALE, "exploding_activation", "exploding_gradient"),
    "overshooting_step": (*TASK, *SCALE, "exploding_activation", "exploding_gradient"),
}
BACKWARD = {"vanishing_gradient", "exploding_gradient", "frozen_weights", "update_too_small", "overshooting_step"}
PAIRS = [(cause, kind) for kind, rule in RULES.items() for cause in rule.causes]


def finding(kind, layer, step=0, severity="warning"):
    return Finding(kind, layer, step, severity, {}, "")


def ordered(*findings):
    return [(each.kind, each.layer, each.consequence_of) for each in order_findings(findings, LAYERS)]


def test_every_pair_has_a_case():
    assert {kind: set(rule.causes) for kind, rule in RULES.items() if rule.causes} == {
        kind: set(causes) for kind, causes in CAUSES.items()
    }
    assert {kind for kind, rule in RULES.items() if rule.direction == "backward"} == BACKWARD


@pytest.mark.parametrize(("cause", "kind"), PAIRS)
def test_a_cause_makes_a_consequence(cause, kind):
    for layer in ("a", "b"):  # before it, or in the same layer
        assert ordered(finding(kind, "b"), finding(cause, layer)) == [(cause, layer, ""), (kind, "b", cause)]
    assert (kind, "b", cause) in ordered(finding(kind, "b", step=5), finding(cause, "a", step=4))


@pytest.mark.parametrize(("cause", "kind"), PAIRS)
def test_without_a_cause_there_is_no_consequence(cause, kind):
    assert ordered(finding(kind, "b")) == [(kind, "b", "")]
    later = finding(cause, "a", step=1)
    assert (kind, "b", "") in ordered(finding(kind, "b"), later)
    behind = ordered(finding(kind, "b"), finding(cause, "c"))
    assert (kind, "b", cause if kind in BACKWARD else "") in behind
    if cause == "initializer_mismatch":  # as information it explains nothing; other information does
        assert (kind, "b", "") in ordered(finding(kind, "b"), finding(cause, "a", severity="info"))
    else:
        assert (kind, "b", cause) in ordered(finding(kind, "b"), finding(cause, "a", severity="info"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_follows_from_the_same_kind_upstream(kind):
    first, second = ("c", "b") if kind in BACKWARD else ("b", "c")
    assert ordered(finding(kind, "b"), finding(kind, "c")) == [(kind, first, ""), (kind, second, kind)]
    assert (kind, second, "") in ordered(finding(kind, first, step=3), finding(kind, second))


@pytest.mark.parametrize("kind", KINDS)
def test_findings_of_one_kind_at_one_place_do_not_explain_each_other(kind):
    """Each would be a consequence of the other, and no cause would be left: also of layers that are not known."""
    for first, second in (("b", "b"), ("unknown", "other")):
        assert {consequence for *_, consequence in ordered(finding(kind, first), finding(kind, second))} == {""}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_cause_explains_nothing(kind):
    for other in set(KINDS) - {kind, *RULES[kind].causes} - {each for each in KINDS if kind in RULES[each].causes}:
        assert {consequence for *_, consequence in ordered(finding(kind, "b"), finding(other, "a"))} == {""}


def test_causes_are_as_grave_as_their_consequences_and_grave_ones_come_first():
    mild, grave = finding("dead_units", "b"), finding("symmetric_units", "a", severity="info")
    found = order_findings([mild, grave], LAYERS)
    assert [each.severity for each in found] == ["warning", "warning"]
    found = order_findings([finding("dead_units", "a"), finding("nonfinite", "d", severity="error")], LAYERS)
    assert [each.kind for each in found] == ["nonfinite", "dead_units"]


def test_of_equal_severity_the_root_kind_then_the_step_then_the_place_decides():
    findings = [finding("frozen_weights", "b"), finding("unscaled_input", "c"), finding("rank_collapse", "a")]
    assert [kind for kind, *_ in ordered(*findings)] == ["unscaled_input", "frozen_weights", "rank_collapse"]
    steps = [finding("wrong_fans", "d", step=2), finding("wrong_fans", "a", step=9), finding("wrong_fans", "z", step=1)]
    assert ordered(*steps)[0] == ("wrong_fans", "z", "")  # a layer that is not known stands last, but came first
