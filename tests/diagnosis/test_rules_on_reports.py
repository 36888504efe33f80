"""Every rule on reports made by hand: on both sides of its threshold, and where it has to be silent."""

import math

import keras
import numpy as np
import pytest
from scipy import stats

from keras_initkit.diagnosis import KINDS, Finding, diagnose
from keras_initkit.diagnosis._finding import confidence_beyond
from keras_initkit.diagnosis._judge import diagnose_reports
from keras_initkit.diagnosis._rule_registry import RULES
from keras_initkit.diagnosis.rules._signal_rank import _estimate_rank
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats
from keras_initkit.statistics._host import effective_rank

PROBE = {"output": (64, 8), "weight": (8, 8), "weight_gradient": (8, 8), "input": (64, 8), "output_gradient": (64, 8)}


def moments(stddev, mean=0.0, count=512, **fields):
    given = {"minimum": mean - 2 * stddev, "maximum": mean + 2 * stddev, "zeros": 0, "nonfinite": 0}
    return Moments(count, mean, count * stddev**2, **{**given, **fields})


ZERO = Moments(64, 0.0, 0.0, 0.0, 0.0, 64, 0)


def layer(name, *, output=1.0, gradient=1.0, weight=0.3, weight_gradient=0.01, update=None, read=None, **fields):
    """Rows of a Dense layer of 8 units; each tensor by its standard deviation, or its moments."""
    kinds = {
        "input": read,
        "output": output,
        "output_gradient": gradient,
        "weight": weight,
        "weight_gradient": weight_gradient,
        "weight_update": update,
    }
    rows = []
    for kind, value in kinds.items():
        if value is not None:
            value = value if isinstance(value, Moments) else moments(value)
            own = fields if kind == "output" else {}
            kind_of_layer = fields.get("layer_type", "Dense")
            own = {key: each for key, each in own.items() if key != "layer_type"}
            rows.append(TensorStats(Tap(kind, name), value, kind_of_layer, PROBE.get(kind), **own))
    return rows


def report(*layers, step=0):
    return SignalReport(tuple(row for rows in layers for row in rows), step)


class Run:
    """What `diagnose` reads of a callback."""

    def __init__(self, *reports):
        self.reports = reports


def found(*reports):
    return {(finding.kind, finding.layer): finding for finding in diagnose_reports(reports)}


HEAD = layer("head")


def test_silent_on_a_sound_report():
    assert diagnose(report(layer("a", read=1.0), layer("b"), HEAD)) == []


# Units


@pytest.mark.parametrize(("dead", "expected"), [(0.5, None), (0.625, None), (7 / 8, None), (1.0, "error")])
def test_dead_units_are_more_than_half_by_a_binomial_test(dead, expected):
    result = found(report(layer("a", dead_units=dead), HEAD)).get(("dead_units", "a"))
    assert (result and result.severity) == expected
    if dead == 7 / 8:  # of 8 units: 9 / 256 is not yet surprising
        assert stats.binom.sf(6, 8, 0.5) == pytest.approx(9 / 256)


def test_dead_units_have_to_last():
    batches = [report(layer("a", dead_units=dead), HEAD, step=step) for step, dead in enumerate([1.0, 1.0, 0.25])]
    assert ("dead_units", "a") not in found(*batches)
    assert found(*batches[:2])["dead_units", "a"].step == 0


def test_zeros_of_a_kernel_of_zeros_are_no_death():
    assert ("dead_units", "a") not in found(report(layer("a", weight=ZERO, dead_units=1.0), HEAD))
    assert ("dead_units", "bn") not in found(report(layer("bn", layer_type="BatchNormalization", dead_units=1.0), HEAD))


def test_units_that_are_zero_because_relu_makes_zeros_of_nan_are_not_called_dead():
    rows = layer("a", weight=moments(math.nan, nonfinite=64), dead_units=1.0)
    assert [kind for kind, _ in found(report(rows, HEAD))] == ["nonfinite"]


def test_saturated_units_of_hidden_layers():
    assert ("saturated_units", "a") not in found(report(layer("a", saturated_units=0.5), HEAD))
    result = found(report(layer("a", saturated_units=0.6), HEAD))["saturated_units", "a"]
    assert result.severity == "warning"
    assert result.confidence == pytest.approx(confidence_beyond(0.6, 0.5))
    assert found(report(layer("a", saturated_units=0.96), HEAD))["saturated_units", "a"].severity == "error"
    assert not found(report(layer("a"), layer("head", saturated_units=1.0)))


def test_saturation_of_relu6_at_zero_is_left_to_dead_units():
    at_zero = Moments(512, 1.0, 512.0, 0.0, 6.0, 300, 0)
    sigmoid = Moments(512, 0.5, 128.0, 0.0, 1.0, 300, 0)  # which underflows
    assert ("saturated_units", "a") in found(report(layer("a", output=sigmoid, saturated_units=0.9), HEAD))
    assert ("saturated_units", "a") not in found(report(layer("a", output=at_zero, saturated_units=0.9), HEAD))


def test_symmetric_units_of_a_constant_kernel():
    constant = Moments(64, 0.1, 0.0, 0.1, 0.1, 0, 0)
    assert found(report(layer("a", weight=constant), HEAD))["symmetric_units", "a"].confidence == 1.0
    assert not found(report(layer("a"), layer("head", weight=constant)))  # a head may start at zero


def test_constant_output():
    ones = Moments(64, 1.0, 0.0, 1.0, 1.0, 0, 0)
    rows = [TensorStats(Tap("output", "head"), ones, "Dense", (64, 1))]
    assert found(report(layer("a"), rows))["constant_output", "head"].severity == "error"
    stuck = layer("head", output=Moments(64, 0.5, 0.0, 0.5, 0.5, 0, 0), weight_gradient=ZERO)
    assert found(report(layer("a"), stuck))[("constant_output", "head")]
    zero_kernel = layer("head", output=ZERO, weight=ZERO)  # gets a gradient
    assert not found(report(layer("a"), zero_kernel))


# Depth


@pytest.mark.parametrize(("last", "severity"), [(0.011, None), (0.009, "warning"), (0.9e-4, "error"), (0.0, "error")])
def test_vanishing_activation(last, severity):
    rows = report(layer("a", read=1.0), layer("b", output=last, weight=0.3), HEAD)
    result = found(rows).get(("vanishing_activation", "b"))
    assert (result and result.severity) == severity


def test_vanishing_names_the_layer_of_the_one_large_step_or_the_first_confidence_beyond():
    step = report(layer("a", read=1.0), layer("b", output=0.5), layer("c", output=1e-3), layer("d", output=9e-4), HEAD)
    assert ("vanishing_activation", "c") in found(step)
    depth = [layer(f"l{i}", read=1.0 if i == 0 else None, output=0.6**i) for i in range(13)]
    assert ("vanishing_activation", "l10") in found(report(*depth, HEAD))  # 0.6^20 < 1e-4 < 0.6^18
    # That a signal is 0 in the end, once it is smaller than what its type holds, is not the largest step.
    underflow = [layer(f"l{i}", read=1.0 if i == 0 else None, output=0.6**i if i < 100 else 0.0) for i in range(120)]
    assert ("vanishing_activation", "l10") in found(report(*underflow, HEAD))
    cut = [layer("a", read=1.0), layer("b", output=0.5), layer("c", output=0.0), layer("d", output=0.0)]
    assert ("vanishing_activation", "c") in found(report(*cut, HEAD))


def test_units_that_get_next_to_nothing_are_not_called_dead():
    def outputs(*sizes):
        return report(
            *[
                layer(f"l{i}", read=1.0 if i == 0 else None, output=size, dead_units=float(size == 0))
                for i, size in enumerate(sizes)
            ],
            HEAD,
        )

    assert {kind for kind, _ in found(outputs(1e-10, 1e-25, 1e-37, 0.0, 0.0))} == {"vanishing_activation"}
    assert ("dead_units", "l2") in found(outputs(1e-10, 1e-25, 0.0, 0.0))


def test_the_variance_vanishes_where_a_sigmoid_puts_out_one_half():
    assert ("vanishing_activation", "b") in found(
        report(layer("a", read=1.0), layer("b", output=moments(0.009, 0.5)), HEAD)
    )


@pytest.mark.parametrize(("largest", "severity"), [(99.0, None), (101.0, "warning"), (1.1e4, "error")])
def test_exploding_activation(largest, severity):
    result = found(report(layer("a", read=1.0), layer("b", output=largest), HEAD)).get(("exploding_activation", "b"))
    assert (result and result.severity) == severity


def test_a_scale_before_a_normalization_is_of_no_consequence():
    norm = layer("norm", layer_type="BatchNormalization")
    for scale in (1e-6, 1e6):
        assert not found(report(layer("a", output=scale, read=1.0), norm, layer("b"), HEAD))


@pytest.mark.parametrize(
    ("first", "severity"), [(0.011, None), (0.009, "info"), (1.1e-3, "info"), (0.9e-3, "warning"), (0.9e-4, "error")]
)
def test_vanishing_gradient(first, severity):
    rows = report(layer("a", gradient=first), layer("b"), HEAD)
    result = found(rows).get(("vanishing_gradient", "a"))
    assert (result and result.severity) == severity


def test_gradients_that_vanish_everywhere_are_those_of_a_converged_network():
    gradients = {"weight_gradient": 1e-9, "gradient": 1e-9}
    assert not found(report(layer("a", **gradients), layer("b", **gradients), layer("head", **gradients)))


@pytest.mark.parametrize(("first", "severity"), [(90.0, None), (110.0, "warning"), (1.1e4, "error")])
def test_exploding_gradient(first, severity):
    result = found(report(layer("a", gradient=first), layer("b"), HEAD)).get(("exploding_gradient", "a"))
    assert (result and result.severity) == severity


def test_the_estimated_rank_of_a_kernel_is_near_its_closed_form():
    assert _estimate_rank(np.zeros((4, 4))) == 0
    assert _estimate_rank(np.full((4, 4), np.nan)) == 0
    generator = np.random.default_rng(1)
    for scale in (1e-200, 1e-20, 1.0, 1e20, 1e200):
        for units in (300, 40):
            matrix = generator.standard_normal((300, 40)) @ generator.standard_normal((40, units))
            squares = np.linalg.svd(matrix, compute_uv=False) ** 2
            bound = squares.sum() ** 2 / (squares**2).sum()
            assert bound < effective_rank(matrix)
            # |A^T A g|^2 has a relative variance of 2 sum s^8 / (sum s^4)^2; 16 are averaged; four standard errors.
            error = np.sqrt(2 * (squares**4).sum() / (squares**2).sum() ** 2 / 16)
            assert _estimate_rank(scale * matrix) == pytest.approx(bound, rel=4 * error)
    flat = np.outer(generator.standard_normal(300), generator.standard_normal(200)).astype("float32")
    # Chi-square of 16 degrees of freedom over 16: outside of these once in a million.
    assert 1 / stats.chi2.isf(5e-7, 16) * 16 < _estimate_rank(flat) < 16 / stats.chi2.ppf(5e-7, 16)


def test_rank_collapse_of_what_had_a_rank():
    def ranks(*values):
        return report(*(layer(f"l{i}", effective_rank=value) for i, value in enumerate(values)), HEAD)

    assert found(ranks(6.0, 1.1))["rank_collapse", "l1"].severity == "warning"
    assert not found(ranks(6.0, 1.3))
    assert not found(ranks(2.0, 1.1))  # one feature of the data
    assert not found(ranks(6.0, 1.1, 5.0))


# Inputs


@pytest.mark.parametrize(
    ("scale", "severity"), [(9.9, None), (10.1, "warning"), (80.0, "error"), (0.011, None), (9e-3, "warning")]
)
def test_unscaled_input(scale, severity):
    result = found(report(layer("a", read=scale), layer("b"), HEAD)).get(("unscaled_input", "a"))
    assert (result and result.severity) == severity


def test_unscaled_input_by_its_mean_and_not_where_it_is_sparse():
    assert ("unscaled_input", "a") in found(report(layer("a", read=moments(1.0, 128.0)), HEAD))
    sparse = Moments(5000, 2e-5, 0.1, 0.0, 1.0, 4999, 0)
    assert ("unscaled_input", "a") not in found(report(layer("a", read=sparse), HEAD))


# Training


def training(updates, weight=0.3, **fields):
    return [report(layer("a", update=u, weight=weight, **fields), HEAD, step=i) for i, u in enumerate(updates)]


@pytest.mark.parametrize(("update", "expected"), [(2.7e-7, True), (3.3e-7, False), (0.0, False)])
def test_update_too_small(update, expected):
    assert (("update_too_small", "a") in found(*training([update] * 3))) is expected


def test_a_rate_that_warms_up_or_that_is_seen_too_late_is_not_too_small():
    assert ("update_too_small", "a") not in found(*training([1e-9, 1e-9, 1e-9, 1e-3]))
    late = [report(layer("a", update=1e-9), HEAD, step=100 + i) for i in range(3)]
    assert ("update_too_small", "a") not in found(*late)


@pytest.mark.parametrize(
    ("updates", "severity"),
    [
        ([0.31], "error"),
        ([0.07] * 3, "warning"),
        ([0.2, 0.01, 0.01], None),
        ([0.117, 0.084, 0.045, 0.033], None),  # Adagrad's first steps at a rate of 0.05 (two layers of 64)
    ],
)
def test_update_too_large(updates, severity):
    result = found(*training(updates)).get(("update_too_large", "a"))
    assert (result and result.severity) == severity


def test_a_kernel_that_starts_near_zero_has_large_updates():
    assert not found(*training([1e-3] * 3, weight=1e-4))


def nan_in(rows, kind):
    return [r if r.tap.kind != kind else TensorStats(r.tap, moments(1.0, nonfinite=3), r.layer_type) for r in rows]


@pytest.mark.parametrize(
    ("kind", "layers", "expected"),
    [("output", ("b", "c"), "b"), ("output_gradient", ("b", "c"), "c"), ("weight", ("c",), "c")],
)
def test_nonfinite_names_the_first_step_and_the_first_layer_in_the_order_of_flow(kind, layers, expected):
    def at(step, broken):
        names = ("a", "b", "c")
        rows = [nan_in(layer(n), kind) if broken and n in layers else layer(n) for n in names]
        return report(*rows, step=step)

    run = [at(0, False), at(5, True), at(9, True)]
    (key,) = found(*run)
    assert key == ("nonfinite", expected)
    assert found(*run)[key].step == 5
    assert found(*run)[key].evidence["nonfinite"] == 3
    assert not found(*run, at(12, False))  # an overflow that passed


def test_a_long_run_is_read_at_its_ends_and_where_it_broke():
    reports = [report(layer("a"), HEAD, step=i) for i in range(40)]
    reports += [report(nan_in(layer("a"), "weight"), HEAD, step=40 + i) for i in range(60)]
    assert diagnose_reports(reports)[0].step == 40


# Findings


def test_causes_come_first_and_their_consequences_say_so():
    rows = report(layer("a", read=80.0, saturated_units=1.0), layer("b", saturated_units=0.7), HEAD)
    findings = diagnose(rows)
    assert [(f.kind, f.layer, f.consequence_of) for f in findings] == [
        ("unscaled_input", "a", ""),
        ("saturated_units", "a", "unscaled_input"),
        ("saturated_units", "b", "unscaled_input"),
    ]


def test_a_cause_is_as_grave_as_what_follows_from_it():
    rows = report(layer("a", read=11.0, saturated_units=1.0), HEAD)
    assert [f.severity for f in diagnose(rows)] == ["error", "error"]
    assert [f.severity for f in diagnose(report(layer("a", read=11.0), HEAD))] == ["warning"]


def test_no_kind_is_its_own_cause_by_way_of_others():
    def roots(kind, way=()):
        assert kind not in way, (*way, kind)
        for cause in RULES[kind].causes:
            roots(cause, (*way, kind))

    for kind in KINDS:
        roots(kind)
    assert set(RULES) == set(KINDS)
    assert {cause for rule in RULES.values() for cause in rule.causes} <= set(KINDS)


def test_confidence_beyond_a_threshold():
    assert confidence_beyond(1.0, 1.0) == 0.5
    assert confidence_beyond(1e3, 10.0) == pytest.approx(0.995)
    assert confidence_beyond(1e-3, 0.1) == pytest.approx(0.995)
    assert confidence_beyond(0.0, 1e-3) == 1.0
    assert confidence_beyond(math.inf, 1.0) == 1.0


def test_findings_print_and_compare():
    finding = Finding("dead_units", "a", 3, "error", {"dead_units": 0.9}, "Draw it anew.")
    assert "dead_units in a at step 3" in str(finding)
    assert "healthy" not in str(finding)
    assert len({finding, Finding("dead_units", "a", 3, "error", {"dead_units": 0.9}, "Draw it anew.")}) == 1
    with pytest.raises(ValueError, match=r"kind: got 'sad', expected one of 'constant_input'"):
        Finding("sad", "a", 0, "error", {}, "")
    with pytest.raises(ValueError, match=r"evidence: got None, expected a mapping"):
        Finding("dead_units", "a", 0, "error", None, "")
    with pytest.raises(ValueError, match=r"severity: got 'fatal', expected one of 'error', 'warning', 'info'"):
        Finding("nonfinite", "a", 0, "fatal", {}, "")


def test_errors():
    with pytest.raises(
        ValueError, match=r"model_or_report: got int, expected a keras\.Model, a SignalReport or a LayerStats"
    ):
        diagnose(3)
    with pytest.raises(ValueError, match=r"model_or_report: got a callback without reports\. Train with it first"):
        diagnose(Run())
    with pytest.raises(ValueError, match=r"model: got int, expected the keras\.Model"):
        diagnose(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), model=3)
    with pytest.raises(ValueError, match=r"x: got data with reports, expected it with a model only"):
        diagnose(Run(report(HEAD)), np.zeros((2, 2)))


def test_a_callback_is_its_reports():
    assert [f.kind for f in diagnose(Run(report(layer("a", dead_units=1.0), HEAD)))] == ["dead_units"]


# What units cost


def bounded(name, stddev, mean=0.0, low=-1.0, high=1.0, saturated=0.0, **fields):
    """Rows of a layer whose output lies between two limits."""
    output = moments(stddev, mean, minimum=low, maximum=high)
    return layer(name, output=output, saturated=saturated, saturated_units=0.0, **fields)


# tanh has a mean slope of 1 - E[f^2], a sigmoid of 4 E[f (1 - f)] of its largest.
@pytest.mark.parametrize(("square", "severity"), [(0.65, None), (0.68, "warning"), (0.89, "warning"), (0.91, "error")])
def test_saturation_by_the_slope_of_tanh(square, severity):
    result = found(report(bounded("a", square**0.5), HEAD)).get(("saturated_units", "a"))
    assert (result and result.severity) == severity
    if result:
        assert result.evidence["mean_slope"] == pytest.approx(1 - square)
        assert result.confidence < 1
    offset = bounded("a", (square - 0.25) ** 0.5, mean=0.5)  # the mean counts as much as what varies
    assert (("saturated_units", "a") in found(report(offset, HEAD))) == (severity is not None)


@pytest.mark.parametrize(("slope", "severity"), [(0.34, None), (0.32, "warning"), (0.11, "warning"), (0.09, "error")])
def test_saturation_by_the_slope_of_a_sigmoid(slope, severity):
    rows = bounded("a", (0.25 * (1 - slope)) ** 0.5, mean=0.5, low=0.0)
    result = found(report(rows, HEAD)).get(("saturated_units", "a"))
    assert (result and result.severity) == severity


def test_what_is_no_saturation_of_a_hidden_layer():
    steep = {"stddev": 0.48, "mean": 0.5, "low": 0.0}
    assert ("saturated_units", "a") in found(report(bounded("a", **steep), HEAD))
    assert not found(report(layer("b"), bounded("head", **steep)))  # a classifier that is sure
    softmax = [row for row in bounded("softmax", **steep, layer_type="Softmax") if row.tap.kind == "output"]
    assert not found(report(layer("b"), HEAD, softmax))
    assert not found(report(layer("b"), bounded("gate", **steep), layer("c"), HEAD))  # it may be one
    assert not found(report(bounded("rnn", 0.98, layer_type="LSTM"), HEAD))
    assert not found(report(layer("a", output=moments(0.98, minimum=-1.0, maximum=1.0)), HEAD))  # bounded by chance
    wide = bounded("a", 0.98, low=-3.0, high=3.0)  # an activation with other limits, which a report does not have
    assert not found(report(wide, HEAD))


def test_saturation_by_the_slope_has_to_be_there_from_the_first_step_on():
    flat, steep = bounded("a", 0.98, update=1e-3), bounded("a", 0.5, update=1e-3)
    for rows, expected in (([flat] * 4, True), ([steep, flat, flat, flat], False), ([flat, flat, flat, steep], False)):
        reports = [report(each, HEAD, step=step) for step, each in enumerate(rows)]
        assert (("saturated_units", "a") in found(*reports)) == expected
    assert ("saturated_units", "a") not in found(report(flat, HEAD, step=9))


def test_the_signal_of_gated_layers_is_not_lost_though_each_gate_halves_it():
    def stack(kind, factor):
        rows = [
            layer(f"r{i}", read=1.0 if i == 0 else None, output=factor ** (i + 1), layer_type=kind) for i in range(6)
        ]
        return {kind for kind, _ in found(report(*rows, HEAD))}

    for kind, healthy in (("LSTM", 0.25), ("GRU", 0.5), ("ConvLSTM2D", 0.25)):
        assert stack(kind, healthy) == set()
        assert stack(kind, healthy / 4) == {"vanishing_activation"}
    assert stack("SimpleRNN", 0.25) == {"vanishing_activation"}


def named(name, *weights, kind="GRU", shape=(8, 24)):
    """A layer with weights by name."""
    rows = [row for row in layer(name, layer_type=kind) if row.tap.kind != "weight"]
    return rows + [TensorStats(Tap("weight", name, name=each), value, kind, shape) for each, value in weights]


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ("kernel", True),
        ("recurrent_kernel", True),
        ("w", True),
        ("bias", False),
        ("gamma", False),
        ("positions", False),
    ],
)
def test_only_kernels_are_symmetric(weight, expected):
    rows = named("a", ("kernel" if weight != "kernel" else "other", moments(0.3)), (weight, ZERO))
    assert (("symmetric_units", "a") in found(report(rows, HEAD))) == expected


def test_a_kernel_of_one_unit_has_no_equal_units_and_a_head_before_its_softmax_may_start_at_zero():
    one = [row if row.tap.kind != "weight" else TensorStats(row.tap, ZERO, "Dense", (8, 1)) for row in layer("a")]
    assert not found(report(one, HEAD))
    softmax = [TensorStats(Tap("output", "softmax"), moments(0.1, 0.5), "Softmax", (64, 8))]
    assert not found(report(layer("a"), layer("head", weight=ZERO), softmax))


def test_a_large_update_is_dated_and_told_by_its_first_step():
    for first, cut in ((0.075, "0.04"), (0.15, "0.02"), (3.0, "0.01")):  # of a weight of 0.3; 1e-2 over its ratio
        result = found(*training([1e-3, first, 3e4, 3e5]))["update_too_large", "a"]
        assert result.step == 1
        assert result.evidence["update_to_weight"] == pytest.approx(first / 0.3)
        assert result.evidence["largest"] == pytest.approx(1e6)
        assert f"learning rate by {cut} " in result.remedy


def test_of_two_layers_at_odds_with_one_rate_one_gives_the_advice():
    reports = [report(layer("a", update=1e-9), layer("b", update=0.1), HEAD, step=i) for i in range(3)]
    result = found(*reports)
    assert "learning_rate" in result["update_too_large", "b"].remedy
    assert "learning_rate" not in result["update_too_small", "a"].remedy


def test_one_batch_is_no_fact():
    for reports, number in (
        ([report(layer("a", dead_units=1.0), HEAD)], 64),
        (training([1e-3] * 3, dead_units=1.0), 192),
    ):
        result = found(*reports)["dead_units", "a"]
        assert result.confidence == pytest.approx(min(1 - 1 / (number + 2), 1 - 0.5**8))
    stuck = layer("head", output=Moments(64, 0.5, 0.0, 0.5, 0.5, 0, 0), weight_gradient=ZERO)
    assert found(report(layer("a"), stuck))["constant_output", "head"].confidence == pytest.approx(1 - 1 / 66)
