"""What the server answers, and what the callback logs for it."""

import json
import struct
import types

import numpy as np
import pytest
from helpers import run_python
from tensorboard.backend.event_processing import data_ingester, data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.callbacks._layers_record import PLUGIN, TAG, write_layers
from keras_initkit_tensorboard import LayersPlugin, _series
from keras_initkit_tensorboard._series import Series, encode_matrix

pytestmark = pytest.mark.one_backend


def decode(content):
    (length,) = struct.unpack("<I", content[:4])
    header = json.loads(content[4 : 4 + length])
    values = np.frombuffer(content[4 + length :], "<f4").reshape(len(header["layers"]), len(header["steps"]))
    return header, values


def provider(directory):
    """TensorBoard's own, of what is in a directory now."""
    found = plugin_event_multiplexer.EventMultiplexer(
        size_guidance=data_ingester.DEFAULT_SIZE_GUIDANCE,
        tensor_size_guidance=data_ingester.DEFAULT_TENSOR_SIZE_GUIDANCE,
    )
    found.AddRunsFromDirectory(str(directory))
    found.Reload()
    return data_provider.MultiplexerDataProvider(found, str(directory))


def point(step, value):
    return types.SimpleNamespace(step=step, value=value)


def test_a_matrix_as_bytes():
    series = {"a": [point(0, 1.5), point(7, float("nan"))], "ünï": [point(7, 2.0), point(9, float("-inf"))]}
    header, values = decode(encode_matrix({"run": "r"}, ["ünï", "a"], series))
    assert header == {"run": "r", "layers": ["ünï", "a"], "steps": [0, 7, 9]}
    # NaN: no point is there; infinity: one that is not finite.
    np.testing.assert_array_equal(values, np.array([[np.nan, 2.0, np.inf], [1.5, np.inf, np.nan]], "f4"))
    regular = {"a": [point(0, 1.0), point(1, 2.0)], "b": [point(0, 3.0), point(1, 1e300)]}
    np.testing.assert_array_equal(decode(encode_matrix({}, ["a", "b"], regular))[1], [[1.0, 2.0], [3.0, np.inf]])
    assert decode(encode_matrix({}, [], {}))[1].shape == (0, 0)


def test_a_step_that_was_done_again_shows_its_later_value():
    _, values = decode(encode_matrix({}, ["a"], {"a": [point(0, 1.0), point(3, 2.0), point(3, 5.0)]}))
    np.testing.assert_array_equal(values, [[1.0, 5.0]])


def test_runs_layers_and_their_order(tmp_path):
    log = EventLog(tmp_path / "with" / "train")
    for step in range(3):
        log.scalars(step, {"activation_variance/b": 1.0 + step, "activation_variance/a/x": 2.0, "mine/b": 3.0})
    log.scalars(0, {"epoch_loss": 1.0, "evaluation/loss": 1.0})
    record = {"version": 1, "statistics": ["activation_variance", "mine"], "layers": [["b", "Dense"], ["a/x", "Dense"]]}
    write_layers(log, 0, {**record, "findings": ["earlier"]})
    write_layers(log, 2, record)
    plain = EventLog(tmp_path / "without")
    plain.scalars(4, {f"dead_units/dense_{i}": 0.5 for i in (10, 9, 1)})
    EventLog(tmp_path / "other").scalars(0, {"loss/train": 1.0})
    series = Series(provider(tmp_path))
    assert series.has_any()
    assert series.runs(RequestContext(), "") == [
        {
            "run": "with/train",
            "statistics": ["activation_variance", "mine"],
            "layers": 2,
            "last_step": 2,
            "record": record,
        },
        {"run": "without", "statistics": ["dead_units"], "layers": 3, "last_step": 4, "record": None},
    ]
    header, values = decode(series.matrix(RequestContext(), "", "with/train", "activation_variance"))
    assert (header["layers"], header["steps"]) == (["b", "a/x"], [0, 1, 2])
    np.testing.assert_array_equal(values, [[1, 2, 3], [2, 2, 2]])
    assert decode(series.matrix(RequestContext(), "", "without", "dead_units"))[0]["layers"] == [
        "dense_1",
        "dense_9",
        "dense_10",
    ]
    assert not Series(provider(tmp_path / "other")).has_any()


def test_a_record_that_is_no_record_is_passed_over(tmp_path):
    log = EventLog(tmp_path)
    log.scalars(0, {"dead_units/a": 0.5})
    write_layers(log, 0, {"version": 2})
    assert Series(provider(tmp_path)).runs(RequestContext(), "")[0]["record"] is None
    write_layers(log, 1, ["a list"])
    assert Series(provider(tmp_path)).runs(RequestContext(), "")[0]["record"] is None


@pytest.mark.parametrize(
    ("points", "kept", "measured", "thinned"),
    [
        (1000, None, 1000, None),
        (1000, None, None, {"shown": 1000, "measured": None}),
        (1001, None, 1001, {"shown": 1000, "measured": 1001}),
        (1001, None, 5, {"shown": 1000, "measured": None}),  # a resumed run
        (999, None, None, None),
        (1000, 0, None, None),  # the server keeps all
    ],
)
def test_missing_points_are_known(tmp_path, points, kept, measured, thinned):
    log = EventLog(tmp_path)
    if measured is not None:
        write_layers(log, 0, {"version": 1, "statistics": [], "layers": [], "measured": measured})
    for step in range(points):
        log.scalars(step, {"dead_units/a": 0.5})
    header, values = decode(Series(provider(tmp_path), kept).matrix(RequestContext(), "", ".", "dead_units"))
    assert header.get("thinned") == thinned
    assert values.shape == (1, min(points, 1000))
    first_look = decode(Series(provider(tmp_path), kept).matrix(RequestContext(), "", ".", "dead_units", points=10))
    assert (first_look[0]["is_preview"], first_look[1].shape) == (True, (1, 10))


def test_one_layer(tmp_path):
    log = EventLog(tmp_path)
    log.scalars(0, {"dead_units/a": 0.5, "activation_variance/a": float("nan"), "dead_units/b": 1.0})
    log.histograms(0, {"weight/a": (np.array([1.0, 3.0]), np.array([-1.0, 0.0, 2.0]))})
    assert Series(provider(tmp_path)).layer(RequestContext(), "", ".", "a") == {
        "statistics": {"activation_variance": [[0, None]], "dead_units": [[0, 0.5]]},
        "histograms": {"weight": [[0, [[-1.0, 0.0, 1.0], [0.0, 2.0, 3.0]]]]},
    }


def test_routes_types_and_policy(tmp_path):
    EventLog(tmp_path).scalars(0, {"dead_units/a": 0.5})
    plugin = LayersPlugin(base_plugin.TBContext(data_provider=provider(tmp_path), sampling_hints={"scalars": 50}))
    assert plugin.is_active()
    assert plugin.frontend_metadata().tab_name == "Layers"
    apps = plugin.get_plugin_apps()
    assert plugin.frontend_metadata().es_module_path in apps
    for route, kind in (("/index.js", "text/javascript"), ("/style.css", "text/css"), ("/runs", "application/json")):
        answer = Client(apps[route]).get("/")
        assert (answer.status_code, answer.mimetype) == (200, kind)
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    answer = Client(apps["/matrix"]).get("/?run=.&statistic=dead_units&points=nonsense")
    assert decode(answer.data)[0] == {
        "run": ".",
        "statistic": "dead_units",
        "is_preview": False,
        "layers": ["a"],
        "steps": [0],
    }
    assert not LayersPlugin(base_plugin.TBContext()).is_active()


def test_tensorboard_loads_the_tab_without_keras():
    """Starting TensorBoard takes no longer; in a fresh process."""
    run_python(
        "-c",
        "import sys, keras_initkit_tensorboard\n"
        "assert not {'keras', 'tensorflow', 'keras_initkit'} & set(sys.modules), sorted(sys.modules)\n",
    )


def test_both_sides_agree_on_names():
    assert (PLUGIN, TAG) == (_series.RECORD_PLUGIN, _series.RECORD_TAG)
    from keras_initkit.report._scalars import BUILT_IN

    assert set(_series.STATISTICS) == BUILT_IN
