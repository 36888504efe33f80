import pytest
from helpers import events, run_python

from keras_initkit.callbacks._event_log import EventLog, make_chart_layout


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


def test_a_layout_has_one_chart_for_each_statistic(tmp_path):
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    log = EventLog(tmp_path)
    log.summary(make_chart_layout({"mean": "the mean", "variance": "the variance"}))
    (value,) = events(log.path)[1].summary.value
    assert value.tag == metadata.CONFIG_SUMMARY_TAG
    layout = layout_pb2.Layout.FromString(value.tensor.string_val[0])
    charts = layout.category[0].chart
    assert [(chart.title, list(chart.multiline.tag)) for chart in charts] == [
        ("the mean", ["^mean/.*"]),
        ("the variance", ["^variance/.*"]),
    ]


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
