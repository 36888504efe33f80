"""Rules of attention on reports made by hand, on both sides of their thresholds."""

import math

import pytest

from keras_initkit.diagnosis import diagnose
from keras_initkit.report._attention_rows import AttentionStats, OrderStats
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats

ROW = TensorStats(Tap("output", "a", 0), Moments.from_array([1.0, -1.0, 2.0]))
UNIFORM = math.log(8)


class Run:
    def __init__(self, *reports):
        self.reports = reports


def attention(layer="attention", entropy=(1.9, 1.8), largest=(2.0, 3.0), **fields):
    tokens = {"queries_from": ("tokens",), "keys_from": ("tokens",)}
    return AttentionStats(layer, 0, 8, 8, entropy, UNIFORM, largest, **{**tokens, **fields})


def report(*rows, step=0, order=(), loss=1.0):
    return SignalReport((ROW,), step, attention=rows, order=tuple(order), loss=loss)


def found(*reports):
    findings = diagnose(reports[0] if len(reports) == 1 else Run(*reports))
    return [(each.kind, each.layer, each.severity) for each in findings]


CAUSAL = {"future": 0.0, "future_allowed": 0.0, "past_allowed": 1.0}
OPEN = {"future": 0.4, "future_allowed": 1.0, "past_allowed": 1.0}
BACKWARD = {"future": 0.6, "future_allowed": 1.0, "past_allowed": 0.0}
LEAK = {"permuted": 0.4, "future": 0.5, "past": 0.5}


def test_a_decoder_of_next_tokens_must_not_see_the_future():
    rows = (attention("first", **CAUSAL), attention("second", **OPEN))
    assert found(report(*rows, order=[OrderStats("tokens", **LEAK, next_tokens=True)])) == [
        ("future_attended", "second", "error")
    ]
    dry = OrderStats("tokens", 0.4, 0.0, 0.5, next_tokens=True)  # nothing comes out of it
    assert found(report(*rows, order=[dry])) == []
    encoder = OrderStats("tokens", **LEAK, next_tokens=False)
    assert found(report(attention("only", **OPEN), order=[encoder])) == []


def test_an_attention_that_is_not_causal_among_others_that_are_is_odd():
    rows = (attention("first", **CAUSAL), attention("second", **OPEN))
    assert found(report(*rows)) == [("future_attended", "second", "warning")]
    assert found(report(*rows, attention("third", **OPEN))) == []  # mostly an encoder
    apart = attention("encoder", **OPEN, queries_from=("words",), keys_from=("words",))
    assert found(report(attention("decoder", **CAUSAL), apart)) == []
    assert found(report(attention("forward", **CAUSAL), attention("backward", **BACKWARD))) == []  # reads both ways


@pytest.mark.parametrize(("labels", "severity"), [(True, "error"), (None, "warning")])
def test_a_mask_that_lets_the_future_through_alone_is_reversed(labels, severity):
    order = OrderStats("tokens", 0.4, 1.0, 0.0, next_tokens=labels)
    report_ = report(attention(**BACKWARD), order=[order])
    assert found(report_) == [("future_attended", "attention", severity)]
    assert "later positions alone" in diagnose(report_)[0].message


@pytest.mark.parametrize(
    ("padding", "expected"), [(0.0, []), (0.02, []), (0.04, ["warning"]), (0.25, ["warning"]), (0.95, ["error"])]
)
def test_weight_on_padding(padding, expected):
    findings = found(report(attention(padding=padding, padded_keys=0.25)))
    assert findings == [("padding_attended", "attention", severity) for severity in expected]


def test_weights_that_do_not_add_up():
    assert found(report(attention(sum_error=0.05))) == []
    assert found(report(attention(sum_error=0.2))) == [("uneven_attention", "attention", "error")]


@pytest.mark.parametrize(("share", "severity"), [(0.3, None), (0.2, "warning"), (0.04, "error")])
def test_collapsed_at_initialization(share, severity):
    row = attention(entropy=(share * UNIFORM, 0.0))
    assert found(report(row)) == ([("collapsed_attention", "attention", severity)] if severity else [])
    assert found(report(row, step=500)) == []  # heads of a trained model may look at single keys


def test_collapsed_while_logits_grow():
    start, later = attention(largest=(2.0, 3.0)), attention(entropy=(0.01, 0.02), largest=(80.0, 70.0))
    assert found(report(start), report(later, step=900)) == [("collapsed_attention", "attention", "error")]
    assert found(report(attention(largest=(20.0, 30.0))), report(later, step=900)) == []
    few = attention(entropy=(0.01,), largest=(40.0,))
    assert found(report(start), report(few, step=900)) == []


def test_uniform_after_training():
    even = attention(entropy=(UNIFORM, UNIFORM * (1 - 1e-6)), largest=(1e-4, 1e-3))
    assert found(report(even)) == []
    assert found(report(even, step=200)) == [("uniform_attention", "attention", "warning")]
    assert found(report(attention(entropy=(UNIFORM, UNIFORM * (1 - 1e-4))), step=200)) == []


def test_two_keys_are_not_judged():
    assert found(SignalReport((ROW,), attention=(AttentionStats("a", 0, 2, 2, (0.0,), math.log(2), (9.0,)),))) == []


def test_order():
    assert found(report(attention(), order=[OrderStats("tokens", 1e-6)])) == [
        ("positions_lost", "attention", "warning")
    ]
    without_labels = report(attention(), order=[OrderStats("tokens", 1e-6)], loss=None)
    assert found(without_labels) == [("positions_lost", "attention", "info")]
    assert found(report(attention(), order=[OrderStats("tokens", 0.01)])) == []
    assert found(report(attention(), order=[OrderStats("tokens")])) == []
