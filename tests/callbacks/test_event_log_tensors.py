"""Histograms, pictures, texts and resumed runs in event files, as TensorBoard reads them."""

import io

import numpy as np
from helpers import events, read_events
from matplotlib.figure import Figure
from tensorboard.util import tensor_util

from keras_initkit.callbacks import _event_log
from keras_initkit.callbacks._event_log import EventLog


def only_value(log, tag):
    values = [v for e in events(log.path) for v in e.summary.value if v.tag == tag]
    assert len(values) == 1
    return values[0].metadata.plugin_data.plugin_name, tensor_util.make_ndarray(values[0].tensor)


def test_a_histogram_s_buckets(tmp_path):
    log = EventLog(tmp_path)
    log.histograms(7, {"weight/a": ((1, 0, 5), (-1.0, 0.0, 0.5, 2.0)), "weight/b": ((3,), (1e-30, 1e-29))})
    plugin, buckets = only_value(log, "weight/a")
    assert plugin == "histograms"
    assert buckets.dtype == np.float64
    np.testing.assert_array_equal(buckets, [[-1, 0, 1], [0, 0.5, 0], [0.5, 2, 5]])
    np.testing.assert_array_equal(only_value(log, "weight/b")[1], [[1e-30, 1e-29, 3]])
    assert [event.step for event in read_events(tmp_path).Tensors("weight/a")] == [7]


def test_a_picture_and_a_text(tmp_path):
    log, file = EventLog(tmp_path), io.BytesIO()
    Figure(figsize=(3, 2)).savefig(file, format="png", dpi=50)
    log.image(4, "picture", file.getvalue())
    log.text(4, "text", "größe | <b>`x`")
    assert [only_value(log, "picture")[0], *only_value(log, "picture")[1]] == [
        "images",
        b"150",
        b"100",
        file.getvalue(),
    ]
    plugin, text = only_value(log, "text")
    assert (plugin, text.item().decode()) == ("text", "größe | <b>`x`")


def test_readers_drop_what_a_resumed_run_does_again(tmp_path, monkeypatch):
    killed = EventLog(tmp_path)
    monkeypatch.setattr(_event_log.os, "getpid", lambda: 1)  # files are read by name, and these are of one second
    for step in range(6):
        killed.scalars(step, {"mean/a": float(step)})
    resumed = EventLog(tmp_path)
    resumed.resumed_at(3)
    for step in range(3, 8):
        resumed.scalars(step, {"mean/a": 10.0 * step})
    values = [(event.step, event.value) for event in read_events(tmp_path).Scalars("mean/a")]
    assert values == [(0, 0), (1, 1), (2, 2), *((step, 10 * step) for step in range(3, 8))]
