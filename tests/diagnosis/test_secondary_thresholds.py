"""Both sides of each threshold beside the main one of a rule: severities, counts, exceptions."""

import math

import keras
import numpy as np
import pytest
from test_rules_on_reports import HEAD, diagnose_reports, found, layer, moments, report, training

from keras_initkit import diagnose
from keras_initkit.diagnosis import ModelContext
from keras_initkit.signal import Moments, Tap, TensorStats

pytestmark = pytest.mark.one_backend

L = keras.layers


def severity(result, kind, at):
    finding = result.get((kind, at))
    return finding and finding.severity


def wide(name, units, **fields):
    """A layer's output alone, of some number of units."""
    return [TensorStats(Tap("output", name), moments(1.0), "Dense", units and (64, units), **fields)]


@pytest.mark.parametrize(("dead", "expected"), [(0.94, "warning"), (0.96, "error")])
def test_dead_units_are_an_error_from_19_of_20_on(dead, expected):
    result = found(report(wide("a", 100, dead_units=dead), HEAD))
    assert severity(result, "dead_units", "a") == expected


@pytest.mark.parametrize(
    ("units", "dead", "expected"),
    [(20, 17, None), (20, 18, "warning"), (None, 9, None), (None, 10, "error")],  # not known: taken for ten
)
def test_dead_units_by_chance(units, dead, expected):
    result = found(report(wide("a", units, dead_units=dead / (units or 10)), HEAD))
    assert severity(result, "dead_units", "a") == expected


def test_all_units_are_dead_where_a_mean_of_ones_is_rounded():
    result = found(report(wide("a", 4, dead_units=float(np.float32(1) - np.float32(6e-8))), HEAD))
    assert result["dead_units", "a"].confidence == 1 - 0.5**4  # of four units; one batch proves nothing


@pytest.mark.parametrize(("saturated", "expected"), [(0.51, "warning"), (0.94, "warning"), (0.96, "error")])
def test_saturated_units_are_an_error_from_19_of_20_on(saturated, expected):
    result = found(report(layer("a", saturated_units=saturated), HEAD))
    assert severity(result, "saturated_units", "a") == expected


@pytest.mark.parametrize(("size", "expected"), [(0.9e-36, None), (1.1e-36, "error")])
def test_a_signal_too_faint_to_call_units_behind_it_dead(size, expected):
    rows = report(layer("a", read=1.0, output=size), layer("b", output=0.0, dead_units=1.0), HEAD)
    assert severity(found(rows), "dead_units", "b") == expected
    rows = report(layer("a", read=1.0, output=size, dead_units=1.0), layer("b", output=size), HEAD)
    assert severity(found(rows), "dead_units", "a") == "error"  # the layer with that signal can be judged


@pytest.mark.parametrize(
    ("scale", "expected"), [(31.5, "warning"), (31.7, "error"), (0.0033, "warning"), (0.0031, "error")]
)
def test_inputs_ten_times_beyond_are_an_error(scale, expected):
    assert severity(found(report(layer("a", read=scale), HEAD)), "unscaled_input", "a") == expected


@pytest.mark.parametrize(("zeros", "expected"), [(89, "error"), (91, None)])
def test_sparse_inputs_may_be_small_and_not_large(zeros, expected):
    small = Moments(100, 0.0, 100 * 1e-6, -1.0, 1.0, zeros, 0)
    large = Moments(100, 0.0, 100 * 1e6, -1.0, 1.0, zeros, 0)
    assert severity(found(report(layer("a", read=small), HEAD)), "unscaled_input", "a") == expected
    assert severity(found(report(layer("a", read=large), HEAD)), "unscaled_input", "a") == "error"


@pytest.mark.parametrize(("last", "expected"), [(1.1e-4, "warning"), (0.9e-4, "error")])
def test_a_signal_that_vanishes_is_an_error_below_the_square_of_what_is_healthy(last, expected):
    result = found(report(layer("a", read=1.0), layer("b", output=last), HEAD))
    assert severity(result, "vanishing_activation", "b") == expected


@pytest.mark.parametrize(("largest", "expected"), [(0.99e4, "warning"), (1.01e4, "error")])
def test_a_signal_that_explodes_is_an_error_above_the_square_of_what_is_healthy(largest, expected):
    result = found(report(layer("a", read=1.0), layer("b", output=largest), HEAD))
    assert severity(result, "exploding_activation", "b") == expected


@pytest.mark.parametrize(("first", "expected"), [(1.1e-4, "warning"), (0.9e-4, "error")])
def test_a_gradient_that_vanishes_is_an_error_at_ten_thousand(first, expected):
    result = found(report(layer("a", gradient=first), layer("b"), HEAD))
    assert severity(result, "vanishing_gradient", "a") == expected


@pytest.mark.parametrize(("first", "expected"), [(0.9e4, "warning"), (1.1e4, "error")])
def test_a_gradient_that_explodes_is_an_error_at_ten_thousand(first, expected):
    result = found(report(layer("a", gradient=first), layer("b"), HEAD))
    assert severity(result, "exploding_gradient", "a") == expected


@pytest.mark.parametrize(("before", "after", "expected"), [(4.1, 1.19, "warning"), (4.1, 1.21, None), (3.9, 1.1, None)])
def test_a_rank_that_was_there_and_is_lost(before, after, expected):
    rows = report(layer("a", effective_rank=before), layer("b", effective_rank=after), HEAD)
    assert severity(found(rows), "rank_collapse", "b") == expected


@pytest.mark.parametrize(("units", "expected"), [(3, None), (4, "warning")])
def test_layers_of_fewer_than_four_units_have_no_rank_to_lose(units, expected):
    rows = report(layer("a", effective_rank=6.0), wide("b", units, effective_rank=1.1), HEAD)
    assert severity(found(rows), "rank_collapse", "b") == expected


@pytest.mark.parametrize(
    ("updates", "expected"),
    [([0.059] * 3, None), ([0.061] * 3, "warning"), ([0.061] * 2, None), ([0.29], None), ([0.31], "error")],
)
def test_updates_of_a_fifth_have_to_last_and_of_the_whole_do_not(updates, expected):
    assert severity(found(*training(updates)), "update_too_large", "a") == expected


@pytest.mark.parametrize(("weight", "expected"), [(0.9e-3, None), (1.1e-3, "error")])
def test_kernels_near_zero_are_not_judged_by_their_updates(weight, expected):
    result = found(*training([2e-3] * 3, weight=weight))
    assert severity(result, "update_too_large", "a") == expected


@pytest.mark.parametrize("number", [2, 3])
def test_small_updates_have_to_last_over_three_reports(number):
    assert (("update_too_small", "a") in found(*training([1e-9] * number))) == (number == 3)


@pytest.mark.parametrize(("other", "expected"), [(1e-8, "error"), (1e-3, "warning")])
def test_small_updates_everywhere_are_an_error(other, expected):
    several = [
        report(layer("a", update=1e-9), layer("b", update=other), layer("c", update=other), HEAD, step=step)
        for step in range(3)
    ]
    result = found(*several)
    assert severity(result, "update_too_small", "a") == expected
    assert ("learning rate by" in result["update_too_small", "a"].remedy) == (expected == "error")


@pytest.mark.parametrize(("part", "expected"), [(0.5e-4, "error"), (2e-4, None)])
def test_units_that_rounding_has_parted_are_equal(part, expected):
    parted = Moments(64, 0.1, 0.0, 0.1 * (1 - part), 0.1, 0, 0)
    assert severity(found(report(layer("a", weight=parted), HEAD)), "symmetric_units", "a") == expected
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16,)), L.Dense(8, "relu", name="a"), L.Dense(3, name="head")])
    kernel = np.tile(np.linspace(-0.4, 0.4, 16)[:, None], (1, 8))
    kernel[:, 5] *= 1 + part  # as vector lanes do, of the last units of a layer
    model.layers[0].kernel.assign(kernel)
    result = {(each.kind, each.layer): each for each in diagnose(model)}
    assert severity(result, "symmetric_units", "a") == expected


@pytest.mark.parametrize(("size", "expected"), [(1.1e-38, True), (1.3e-38, False)])
def test_a_gradient_that_some_processors_take_for_zero_is_zero(size, expected):
    faint = Moments(64, 0.0, 64 * size**2, -size, size, 0, 0)
    stuck = layer("head", output=Moments(64, 0.5, 0.0, 0.5, 0.5, 0, 0), weight_gradient=faint)
    assert (("constant_output", "head") in found(report(layer("a"), stuck))) == expected


@pytest.mark.parametrize(("low", "expected"), [(1 - 0.5e-4, True), (1 - 2e-4, False)])
def test_a_softmax_over_one_unit_in_a_bare_report_is_one_up_to_rounding(low, expected):
    ones = Moments(64, 1.0, 0.0, low, 1.0, 0, 0)
    rows = [TensorStats(Tap("output", "head"), ones, "Dense", (64, 1))]
    assert (("constant_output", "head") in found(report(layer("a"), rows))) == expected


def test_a_softmax_over_one_unit_is_known_by_its_layer_and_a_saturated_sigmoid_is_none():
    def kinds(*layers):
        model = keras.Sequential([keras.Input((4, 1)), *layers])
        return {each.kind for each in diagnose(model, np.random.default_rng(0).standard_normal((32, 4, 1)))}

    assert "constant_output" in kinds(L.Flatten(), L.Dense(1), L.Softmax())
    assert "constant_output" in kinds(L.Dense(1), L.Softmax(axis=-1))
    assert "constant_output" not in kinds(L.Dense(1), L.Softmax(axis=1))
    assert "constant_output" not in kinds(L.Flatten(), L.Dense(2, "softmax"))
    assert "constant_output" not in kinds(L.Flatten(), L.Dense(1, "sigmoid"))


@pytest.mark.parametrize("number", [2, 3])
def test_overflow_under_loss_scaling_has_to_last_over_three_reports(number):
    model = keras.Sequential([keras.Input((8,)), L.Dense(8, name="a"), L.Dense(8, name="head")])
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    overflow = Moments(64, math.nan, math.nan, -1.0, 1.0, 0, 3)
    reports = [report(layer("a"), HEAD)] * 2
    reports += [report(layer("a", weight_gradient=overflow), HEAD, step=2 + step) for step in range(number)]
    kinds = {each.kind for each in diagnose_reports(reports, ModelContext(model))}
    assert ("nonfinite" in kinds) == (number == 3)
    broken = [report(layer("a", output=overflow), HEAD)]  # an output is no trial of a loss scale
    assert [each.kind for each in diagnose_reports(broken, ModelContext(model))] == ["nonfinite"]


@pytest.mark.parametrize(("factor", "expected"), [(1.9, None), (2.1, "info"), (9.5, "info"), (10.5, "warning")])
def test_wrong_fans_by_the_factor_in_variance(factor, expected):
    # Glorot's variance by Keras' fans of a depthwise kernel, 2 / (9 c + 9), to that by its own, 2 / 18.
    channels = round(2 * factor - 1)
    factor = (channels + 1) / 2
    model = keras.Sequential([keras.Input((6, 6, channels)), L.DepthwiseConv2D(3, name="a"), L.Flatten(), L.Dense(3)])
    keras_stddev = (2 / (9 * channels + 9)) ** 0.5
    shape = tuple(model.layers[0].kernel.shape)
    signs = np.where(np.arange(np.prod(shape)) % 3, 1.0, -1.0).reshape(shape)
    model.layers[0].kernel.assign(keras_stddev * signs)
    result = {(each.kind, each.layer): each for each in diagnose(model)}
    expected = "warning" if factor > 10 else "info" if factor > 2 else None
    assert severity(result, "wrong_fans", "a") == expected
