import sys

import pytest
from helpers import events, run_python

from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.callbacks._over_layers import NONFINITE


def test_one_event_holds_all_values_of_a_step(tmp_path):
    log = EventLog(tmp_path / "run" / "train")
    log.scalars(3, {"a/x": 1.5, "b/y": float("nan")})
    version, event = events(log.path)
    assert version.file_version == "brain.Event:2"
    assert event.step == 3
    assert [value.tag for value in event.summary.value] == ["a/x", "b/y"]
    assert event.summary.value[0].tensor.float_val[0] == 1.5  # TensorBoard's loader turns simple values into these
    assert [path.name for path in (tmp_path / "run" / "train").iterdir()] == [log.path.rsplit("/", 1)[1]]


def test_two_logs_of_one_directory_do_not_meet(tmp_path):
    first, second = EventLog(tmp_path), EventLog(tmp_path)
    assert first.path != second.path


def layouts(log):
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    values = [value for event in events(log.path) for value in event.summary.value]
    assert {value.tag for value in values} == {metadata.CONFIG_SUMMARY_TAG}
    return [layout_pb2.Layout.FromString(value.tensor.string_val[0]) for value in values]


def test_a_layout_grows_by_the_charts_that_have_something_to_show(tmp_path):
    log = EventLog(tmp_path)
    log.charts(0, {"a/mean": "the mean"})
    log.charts(1, {"a/mean": "the mean"})
    log.charts(2, {NONFINITE: "not finite"})
    first, second = layouts(log)
    (mean,) = first.category[0].chart
    assert mean.title == "the mean"
    (series,) = mean.margin.series
    assert (series.value, series.lower, series.upper) == ("a/mean median", "a/mean min", "a/mean max")
    assert [chart.title for chart in second.category[0].chart] == ["not finite", "the mean"]
    assert list(second.category[0].chart[0].multiline.tag) == [f"^{NONFINITE}$"]


def test_a_file_in_the_directory_s_place(tmp_path):
    (tmp_path / "logs").write_text("not a directory")
    with pytest.raises(OSError, match="logs"):
        EventLog(tmp_path / "logs" / "train")


def test_writing_needs_no_framework(tmp_path):
    """In a fresh process: neither TensorFlow nor Keras is loaded to write an event."""
    code = (
        "import sys, importlib.util\n"
        "from tensorboard.summary.writer.record_writer import RecordWriter\n"
        "from tensorboard.compat.proto.event_pb2 import Event\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    run_python("-c", code)


def test_the_layout_of_charts_is_written_without_tensorflow(tmp_path, monkeypatch):
    from tensorboard.plugins.custom_scalar import layout_pb2

    log = EventLog(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow", None)
        patch.setitem(sys.modules, "tensorflow.compat.v1", None)
        log.charts(0, {"Units/dead": "dead units"})
    (value,) = events(log.path)[-1].summary.value
    assert (value.tag, value.metadata.plugin_data.plugin_name) == ("custom_scalars__config__", "custom_scalars")
    (category,) = layout_pb2.Layout.FromString(value.tensor.string_val[0]).category
    assert [chart.title for chart in category.chart] == ["dead units"]
