"""Histograms, heat maps, summaries and chosen statistics of real fits."""

import warnings

import keras
import numpy as np
import pytest
from helpers import read_events
from tensorboard.util import tensor_util

from keras_initkit.callbacks import LayerStatsCallback, _pacing, _run_diagnosis, _summary
from keras_initkit.report import _scalars, register_statistic
from keras_initkit.report._health import signal_decades
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats

PARTS = ("min", "median", "max")
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((60, 6)).astype("float32"), RNG.integers(0, 3, 60)


def small_model():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "tanh", name="hidden")])
    model.add(keras.layers.Dense(3, "softmax", name="out"))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def fit(callback, epochs=2, **options):
    model = small_model()
    model.fit(X, Y, batch_size=20, epochs=epochs, shuffle=False, verbose=0, callbacks=[callback], **options)
    return model


def test_histograms_at_every_second_epoch(tmp_path):
    callback = LayerStatsCallback(tmp_path, 2, histogram_freq=2)
    model = small_model()
    kernel = model.get_layer("hidden").kernel.numpy()
    model.fit(X, Y, batch_size=20, epochs=4, shuffle=False, verbose=0, callbacks=[callback])
    log = read_events(tmp_path / "train")
    tags = {f"{kind}/{layer}" for kind in ("activation", "activation_gradient", "weight", "weight_gradient")
            for layer in ("hidden", "out")}  # fmt: skip
    plugin = log.PluginTagToContent("histograms")
    assert set(plugin) == tags
    for tag in tags:  # epochs of 3 steps: 0 to 2 have step 0 measured first, 6 to 8 step 6
        assert [event.step for event in log.Tensors(tag)] == [0, 6]
    left, right, count = tensor_util.make_ndarray(log.Tensors("weight/hidden")[0].tensor_proto).T
    np.testing.assert_array_equal(left[1:], right[:-1])
    expected = [((kernel >= a) & (kernel < b)).sum() for a, b in zip(left, right, strict=True)]
    assert count.sum() == kernel.size
    assert np.abs(count - expected).sum() <= 2  # elements on an edge, which has another rounding in float32
    assert [any(row.histogram for row in report.rows) for report in callback.reports] == [
        True,
        False,
        False,
        True,
        *[False] * 2,
    ]


def test_no_histograms_unless_asked(tmp_path):
    callback = LayerStatsCallback(tmp_path)
    fit(callback)
    assert not any(row.histogram for report in callback.reports for row in report.rows)
    assert "histograms" not in read_events(tmp_path / "train").summary_metadata.values()


def test_chosen_statistics(tmp_path):
    callback = LayerStatsCallback(tmp_path, statistics=["update_ratio", "dead_units"])
    fit(callback)
    assert set(read_events(tmp_path / "train").Tags()["scalars"]) == {
        *(f"{name}/{layer}" for name in callback.statistics for layer in ("hidden", "out")),
        *(f"{chart} {part}" for chart in ("Weights log10/update ratio", "Units/dead") for part in PARTS),
    }
    assert {tap.kind for report in callback.reports for tap in report.moments} == {"output", "weight", "weight_update"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistics": "dead_units"}, "statistics: got 'dead_units', expected names among .*'dead_units'"),
        ({"statistics": ["loss"]}, "statistics: got 'loss'"),
        ({"sample_size": 0}, "sample_size: got 0, expected a positive integer"),
        ({"sample_size": 1e5}, r"sample_size: got 100000\.0"),
        ({"histogram_freq": -1}, "histogram_freq: got -1, expected an integer of at least 0"),
        ({"histogram_freq": True}, "histogram_freq: got True"),
        ({"sample_size": np.int64(0)}, r"sample_size: got .*0.*, expected a positive integer"),
        ({"log_dir": 3}, "log_dir: got 3, expected a path, or None to measure without a log"),
        ({"log_dir": ""}, "log_dir: got '', expected a path"),
        ({"exact": "no"}, "exact: got 'no', expected True or False"),
        ({"on_finding": "raise"}, "on_finding: got 'raise', expected one of 'warn', 'stop', 'ignore', or a function"),
    ],
    ids=["a-name", "unknown", "zero", "float", "negative", "bool", "numpy", "log_dir", "empty", "exact", "raise"],
)
def test_arguments_are_checked_where_they_are_given(options, message):
    with pytest.raises(ValueError, match=message):
        LayerStatsCallback(**{"log_dir": None, **options})


def test_integers_of_numpy_are_integers():
    plain = LayerStatsCallback(None, 2, histogram_freq=1, sample_size=50)
    numpy = LayerStatsCallback(None, np.int64(2), histogram_freq=np.int32(1), sample_size=np.uint16(50))
    assert type(numpy.histogram_freq) is type(numpy.sample_size) is int
    fit(plain)
    fit(numpy)
    assert [report.step for report in numpy.reports] == [0, 2, 4]
    assert numpy.reports == plain.reports


def test_a_registered_statistic_is_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(_scalars, "STATISTICS", dict(_scalars.STATISTICS))
    register_statistic("largest", lambda rows: rows["output"][0].moments.maximum, kinds="output")
    callback = LayerStatsCallback(tmp_path, statistics=["largest"])
    fit(callback)
    assert set(read_events(tmp_path / "train").Tags()["scalars"]) == {
        "largest/hidden",
        "largest/out",
        *(f"Statistics/largest {part}" for part in PARTS),
    }
    assert {tap.kind for report in callback.reports for tap in report.moments} == {"output"}
    (first,) = [row for row in callback.reports[0].rows if row.tap.layer == "hidden"]
    assert read_events(tmp_path / "train").Scalars("largest/hidden")[0].value == np.float32(first.moments.maximum)


def test_the_picture_and_the_summary_at_the_end(tmp_path):
    callback = LayerStatsCallback(tmp_path, 2)
    fit(callback)
    log = read_events(tmp_path / "train")
    (text,), (first, picture) = log.Tensors(_summary.TEXT), log.Tensors(_summary.PICTURE)
    assert (first.step, text.step, picture.step) == (2, 4, 4)  # at the end of the first epoch, and of the last
    assert tensor_util.make_ndarray(picture.tensor_proto)[2].startswith(b"\x89PNG")
    words = tensor_util.make_ndarray(text.tensor_proto).item().decode()
    assert "3 measured steps, from step 0 (epoch 0) to step 4 (epoch 1); layers: 2." in words
    (decades, _) = signal_decades(callback.reports[0])
    assert f"| forward | 0 | 0.0 | `{next(iter(decades))}` | 0.0 | `hidden` |" in words


def test_the_summary_names_the_first_value_that_is_not_finite():
    def report(step, *values):
        taps = [Tap("output", "a|`b`\n<i>"), Tap("output_gradient", "out")]
        return SignalReport.of_step(
            step, step // 5, [TensorStats(t, Moments.of(v)) for t, v in zip(taps, values, strict=True)]
        )

    fine, broken = report(3, [1, 2], [1, 2]), report(7, [1, 3], [1, np.nan])
    text = _summary.summarize([fine, broken], "net", [])
    assert "NaN or infinity first appears at step 7 (epoch 1), in the output gradient of `out`." in text
    assert "| backward | 3 | 0.0 | `out` | 0.0 | `out` |" in text
    assert "| backward | 7 |" not in text
    assert text.count("`a¦'b' <i>`") == 4  # largest and smallest, twice; in one line, without a bar or a backtick
    assert "All measured values are finite." in _summary.summarize([fine], "net", [])


def test_the_heat_maps_hold_the_decades_of_the_reports():
    callback = LayerStatsCallback(None, 1)
    fit(callback)
    left, right = [panel for panel in callback.plot().axes if panel.get_title(loc="left")]
    for panel, direction in ((left, 0), (right, 1)):
        decades = [signal_decades(report)[direction] for report in callback.reports]
        for row, label in enumerate(left.get_yticklabels()):  # "out" is judged by nothing forward
            expected = [each.get(label.get_text(), np.nan) for each in decades]
            np.testing.assert_allclose(panel.images[0].get_array()[row].filled(np.nan), expected)
    assert [label.get_text() for label in left.get_yticklabels()] == ["hidden", "out"]
    figure = callback.plot(statistic="update_ratio", layers="hid*")
    expected = [report.statistic("update_ratio")["hidden"] for report in callback.reports]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array()[0], expected)
    with pytest.raises(ValueError, match="layers: got 'hiden', which matches no layer"):
        callback.plot(layers="hiden")


def test_plot_needs_a_measured_step():
    with pytest.raises(ValueError, match="plot: got a training without a measured step"):
        LayerStatsCallback(None).plot()


def test_a_picture_that_cannot_be_drawn_costs_a_warning(tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(_summary, "draw_picture", fail)
    callback = LayerStatsCallback(tmp_path, on_finding="ignore")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(callback)
    (message,) = [str(w.message) for w in caught if "LayerStatsCallback" in str(w.message)]
    assert "RuntimeError: no fonts" in message
    assert len(callback.reports) == 2
    assert _summary.TEXT in read_events(tmp_path / "train").Tags()["tensors"]


def test_a_picture_at_the_end_of_every_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(_pacing, "_PAUSE", 0.0)
    callback = LayerStatsCallback(tmp_path, 2)  # epochs of 3 steps: 0, 2, 4, 6 and 8 are measured
    model = fit(callback, epochs=3)
    assert [event.step for event in read_events(tmp_path / "train").Tensors(_summary.PICTURE)] == [2, 4, 8]
    model.fit(X, Y, batch_size=20, epochs=1, shuffle=False, verbose=0, callbacks=[callback])
    assert [event.step for event in read_events(tmp_path / "train").Tensors(_summary.PICTURE)] == [2, 4, 8, 10]


def test_no_word_of_findings_where_the_diagnosis_failed(tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("a bug in a rule")

    monkeypatch.setattr(_run_diagnosis, "diagnose_reports", fail)
    with pytest.warns(UserWarning, match=r"the diagnosis failed \(RuntimeError: a bug in a rule\)"):
        fit(LayerStatsCallback(tmp_path))
    (text,) = read_events(tmp_path / "train").Tensors(_summary.TEXT)
    assert "diagnosis" not in tensor_util.make_ndarray(text.tensor_proto).item().decode()
