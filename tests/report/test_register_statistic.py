"""Statistics that users add: checked when they are registered, computed by reports, logged by the callback."""

import warnings

import keras
import numpy as np
import pytest
from helpers import read_events

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.report import _scalars
from keras_initkit.signal import KINDS, STATISTICS, Moments, SignalReport, Tap, TensorStats, register_statistic


@pytest.fixture(autouse=True)
def built_in_statistics_afterwards():
    before = dict(STATISTICS)
    yield
    STATISTICS.clear()
    STATISTICS.update(before)


def value_range(rows):
    """Largest minus smallest output of a layer that has some."""
    moments = Moments.merged(row.moments for row in rows.get("output", ()))
    return moments.maximum - moments.minimum if moments.count else None


def test_reports_compute_it_for_the_layers_to_which_it_applies():
    register_statistic("value_range", value_range, "output")
    values = ([0.0, 3.0], [-1.0, 2.0])
    rows = [TensorStats(Tap("output", "a", call), Moments.of(each)) for call, each in enumerate(values)]
    report = SignalReport((*rows, TensorStats(Tap("weight", "b", None, "kernel"), Moments.of([1.0, 5.0]))))
    assert report.statistic("value_range") == {"a": 4.0}
    assert report.scalars(["value_range"]) == {"value_range/a": 4.0}
    assert report.scalars()["value_range/a"] == 4.0


def test_fit_logs_it_under_its_tag(tmp_path):
    register_statistic("value_range", value_range, "output")
    register_statistic("kernel_peak", lambda rows: _scalars._merge(rows, "weight").maximum, ("weight", "output"))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    outputs = keras.ops.convert_to_numpy(model.get_layer("a")(x))
    kernel = keras.ops.convert_to_numpy(model.get_layer("a").kernel)
    callback = LayerStatsCallback(str(tmp_path), statistics=["value_range", "kernel_peak"], on_finding="ignore")
    model.fit(x, np.zeros((8, 2), "float32"), batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
    assert {row.tap.kind for row in callback.reports[0].rows} == {"output", "weight"}
    log = read_events(tmp_path / "train")
    tags = {f"{name}/{layer}" for name in ("value_range", "kernel_peak") for layer in "ab"}
    together = {
        f"Statistics/{name} {part}" for name in ("value_range", "kernel_peak") for part in ("min", "median", "max")
    }
    assert set(log.Tags()["scalars"]) == tags | together
    two = sorted(log.Scalars(f"value_range/{layer}")[0].value for layer in "ab")
    ends = [log.Scalars(f"Statistics/value_range {part}")[0].value for part in ("min", "max")]
    assert ends == two
    assert [event.step for event in log.Scalars("value_range/a")] == [0, 1]
    assert log.Scalars("value_range/a")[0].value == pytest.approx(np.ptp(outputs), rel=1e-5)
    assert log.Scalars("kernel_peak/a")[0].value == pytest.approx(kernel.max(), rel=1e-6)


def test_what_raises_is_left_out_of_the_log_with_one_warning_each(tmp_path):
    def not_on_b(rows):
        if rows["output"][0].tap.layer == "b":
            raise RuntimeError("no such luck")
        return 1.0

    functions = {"not_on_b": not_on_b, "odd": lambda rows: "much", "value_range": value_range}
    for name, function in functions.items():
        register_statistic(name, function, "output")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")])
    model.compile("sgd", "mse")
    x = np.ones((8, 4), "float32")
    callback = LayerStatsCallback(
        str(tmp_path), "batch", statistics=["activation_mean", *functions], histogram_freq=1, on_finding="ignore"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, np.zeros((8, 2)), batch_size=2, epochs=1, verbose=0, callbacks=[callback])
    texts = [str(each.message) for each in caught if "LayerStatsCallback" in str(each.message)]
    assert len(texts) == 2, texts
    assert texts[0].startswith("LayerStatsCallback: the statistic 'not_on_b' raised RuntimeError: no such luck. It is")
    assert texts[1].startswith("LayerStatsCallback: the statistic 'odd' raised ValueError: statistic 'odd': it retur")
    assert len(callback.reports) == 4
    log = read_events(tmp_path / "train")
    names, parts = ("activation_mean", "value_range"), ("min", "median", "max")
    assert set(log.Tags()["scalars"]) == {f"{name}/{layer}" for name in names for layer in "ab"} | {
        f"Statistics/{name} {part}" for name in names for part in parts
    }
    for tag in log.Tags()["scalars"]:
        assert [event.step for event in log.Scalars(tag)] == [0, 1, 2, 3]
    assert {"activation/a", "activation/b", "layers/variance", "layers/summary"} <= set(log.Tags()["tensors"])


def test_the_default_statistics_stay_what_they_were():
    default = _scalars.check_statistics(None)
    register_statistic("value_range", value_range)
    assert _scalars.check_statistics(None) == default
    assert "value_range" in _scalars.check_statistics(STATISTICS)


def test_a_name_is_taken_once():
    register_statistic("value_range", value_range)
    register_statistic("value_range", value_range)  # a module that is imported again
    other = lambda rows: 1.0  # noqa: E731
    with pytest.raises(ValueError, match=r"name: got 'value_range', .*expected a new name\. Pass replace=True"):
        register_statistic("value_range", other)
    with pytest.raises(ValueError, match=r"'activation_mean', which is registered"):
        register_statistic("activation_mean", value_range)
    register_statistic("value_range", other, replace=True)
    assert STATISTICS["value_range"].function is other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", value_range), r"name: got '', expected a string of letters"),
        (("a/b", value_range), r"name: got 'a/b', expected"),
        ((3, value_range), r"name: got 3, expected"),
        (("new", "mean"), r"function: got 'mean', expected a function"),
        (("new", value_range, "outputs"), r"kinds: got \('outputs',\), expected one or more of 'input'"),
        (("new", value_range, ["output", "loss"]), r"kinds: got \('output', 'loss'\)"),
        (("new", value_range, None), r"kinds: got \(None,\), expected"),
        (("new", value_range, [[]]), r"kinds: got \(\[\],\), expected"),
        (("new", value_range, []), r"kinds: got \(\), expected"),
    ],
)
def test_arguments_are_checked(arguments, message):
    before = dict(STATISTICS)
    with pytest.raises(ValueError, match=message):
        register_statistic(*arguments)
    assert before == STATISTICS


def test_an_unknown_name_is_told_its_neighbors():
    report = SignalReport(())
    several = (lambda name: report.scalars([name]), lambda name: LayerStatsCallback(statistics=[name]))
    for ask in (report.statistic, *several):
        with pytest.raises(ValueError, match=r"got 'activation_varianc', .*Did you mean 'activation_variance'"):
            ask("activation_varianc")


def test_kinds_come_in_the_order_of_taps():
    register_statistic("all", value_range, reversed(KINDS))
    assert _scalars.needed_kinds(["all"]) == KINDS


@pytest.mark.parametrize("value", ["much", [1.0], np.ones(2), 1j], ids=str)
def test_a_statistic_that_is_no_number_is_named(value):
    register_statistic("odd", lambda rows: value)
    rows = [TensorStats(Tap("output", "a", 0), Moments.of([0.0, 1.0]))]
    with pytest.raises(ValueError, match=r"^statistic 'odd': it returned .*, expected a number or None"):
        _scalars.read_statistics(rows, ["odd"])
