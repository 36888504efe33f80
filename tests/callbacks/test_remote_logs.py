"""Logs in stores that fsspec knows: in memory, and on a real S3 server on the loopback address."""

import logging
import random
import sys
import uuid
import warnings

import keras
import numpy as np
import pytest
from helpers import default_tags, mlp, read_events, together_tags

from keras_initkit.callbacks import LayerStatsCallback, TensorBoardSink, _event_files
from keras_initkit.callbacks._event_log import EventLog

fsspec = pytest.importorskip("fsspec")
pytestmark = pytest.mark.one_backend

X = np.random.default_rng(0).standard_normal((32, 6)).astype("float32")
Y = np.arange(32) % 3


def new_model():
    keras.utils.set_random_seed(1)
    model = mlp()
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def fit(log_dir, *callbacks, model=None, **options):
    """Returns the callback and its warnings."""
    callback = LayerStatsCallback(log_dir, "batch", on_finding="ignore", **options)
    return callback, train(new_model() if model is None else model, callback, *callbacks)


def train(model, *callbacks):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=list(callbacks))
    return [str(w.message) for w in caught if "LayerStatsCallback" in str(w.message)]


def at(batch, action):
    return keras.callbacks.LambdaCallback(on_train_batch_begin=lambda b, logs: action() if b == batch else None)


def download(store, url, directory):
    """Copies what lies there, and reads it as TensorBoard does."""
    store.invalidate_cache()
    store.get(url, str(directory), recursive=True)
    return read_events(directory)


def steps(log):
    return [event.step for event in log.Scalars("update_ratio/z")]


@pytest.fixture
def memory():
    store, root = fsspec.filesystem("memory"), f"memory://{uuid.uuid4().hex}"
    yield store, root
    store.rm(root, recursive=True)


@pytest.fixture
def s3(monkeypatch):
    """A server that can be stopped and started again, and the URL of a bucket there."""
    moto, s3fs = pytest.importorskip("moto.server"), pytest.importorskip("s3fs")
    pytest.importorskip("flask_cors")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    servers = []

    def start(port=0):
        servers.append(moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False))
        servers[-1].start()
        return servers[-1].get_host_and_port()[1]

    port = start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "user",
        "AWS_SECRET_ACCESS_KEY": "password",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_MAX_ATTEMPTS": "2",  # with the default of five it takes ten seconds until a server counts as gone
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    store, bucket = fsspec.filesystem("s3"), uuid.uuid4().hex
    store.mkdir(bucket)
    yield store, f"s3://{bucket}", lambda: servers[-1].stop(), lambda: start(port)
    servers[-1].stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_log_in_memory(memory, tmp_path):
    store, root = memory
    callback, said = fit(f"{root}/logs")
    assert said == []
    assert callback.run_dir == f"{root}/logs"
    log = download(store, f"{root}/logs/train/", tmp_path)
    assert set(log.Tags()["scalars"]) == default_tags("a", "z") | together_tags()
    assert set(log.Tags()["tensors"]) == {
        "custom_scalars__config__",
        "keras_initkit/layers",
        "layers/variance",
        "layers/summary",
    }
    for tag in default_tags("a", "z"):
        expected = [np.float32(report.scalars()[tag]) for report in callback.reports]
        np.testing.assert_array_equal([event.value for event in log.Scalars(tag)], expected)
    train(callback.model, callback)
    assert len(store.ls(f"{root}/logs/train")) == 1  # one file for both
    assert steps(download(store, f"{root}/logs/train/", tmp_path / "again")) == list(range(8))


def test_every_write_is_there_when_it_returns(memory, tmp_path):
    store, root = memory
    log = EventLog(root)
    for step in range(3):
        log.scalars(step, {"update_ratio/z": 0.5})
        assert steps(download(store, f"{root}/", tmp_path / str(step))) == list(range(step + 1))


def test_objects_stay_small_and_are_read_in_order(memory, tmp_path, monkeypatch):
    """So that a write sends no more than one of them."""
    store, root = memory
    monkeypatch.setattr(_event_files, "_SEGMENT", 2000)
    log = EventLog(root)
    for step in range(200):
        log.scalars(step, {"update_ratio/z": 0.5, "a": 1.0})
    sizes = [store.size(name) for name in store.ls(root, detail=False)]
    assert len(sizes) > 5
    assert max(sizes) < 2100
    assert steps(download(store, f"{root}/", tmp_path)) == list(range(200))
    assert not log.finds_another_run()  # all of them are its own
    assert log.is_latest()
    assert EventLog(root).finds_another_run()
    assert not log.is_latest()


def test_a_second_run_in_a_store_is_noticed(memory):
    _, root = memory
    assert fit(root)[1] == []
    _, (message,) = fit(root)
    assert f"{root}/train already holds a run" in message
    model = new_model()
    assert fit(f"{root}/other", model=model)[1] == []
    assert fit(f"{root}/other", model=model)[1] == []  # it goes on


def test_each_run_in_a_store_has_its_directory(memory):
    _, root = memory
    names = [fit(root + "/{time}")[0].run_dir for _ in range(2)]
    assert len(set(names)) == 2
    assert all(name.startswith(f"{root}/2") for name in names)


def test_a_sink_in_a_store(memory, tmp_path):
    store, root = memory
    fit(None, sinks=[TensorBoardSink(root)])
    assert steps(download(store, f"{root}/", tmp_path)) == list(range(4))


@pytest.mark.parametrize(
    ("place", "why"),
    [("gs://bucket/logs", "gcsfs"), ("nowhere://bucket", "Protocol not known: nowhere")],
)
def test_a_store_whose_package_is_missing_is_refused(place, why, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    message = rf"log_dir: got '{place}', expected a path of this machine, or a URL .*{why}.*pip install"
    with pytest.raises(ValueError, match=message):
        LayerStatsCallback(place)


def test_without_fsspec_every_url_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ValueError, match=r"log_dir: got 's3://a/b', .*fsspec.*pip install 'keras-initkit\[remote\]'"):
        LayerStatsCallback("s3://a/b")
    LayerStatsCallback("logs")


def test_a_log_on_s3(s3, tmp_path):
    store, root, *_ = s3
    callback, said = fit(f"{root}/logs", histogram_freq=1)
    assert said == []
    log = download(store, f"{root}/logs/train/", tmp_path)
    assert steps(log) == [0, 1, 2, 3]
    assert log.Scalars("update_ratio/z")[0].value == np.float32(callback.reports[0].scalars()["update_ratio/z"])
    assert {"layers/variance", "weight/z"} <= set(log.Tags()["tensors"])
    _, (message,) = fit(f"{root}/logs")
    assert f"{root}/logs/train already holds a run" in message


def test_a_bucket_that_is_missing_stops_before_training(s3):
    store, root, *_ = s3
    model = new_model()
    before = model.get_weights()
    with pytest.raises(OSError, match=rf"cannot write the log to {root}-2/logs .*Choose another `log_dir`"):
        fit(f"{root}-2/logs", model=model)
    np.testing.assert_equal(model.get_weights(), before)
    assert not store.exists(f"{root}-2")


def test_a_server_that_goes_away_in_the_middle(s3, tmp_path):
    store, root, stop, start = s3
    plain = new_model()
    train(plain)
    following = random.random()
    model = new_model()
    callback, (message,) = fit(root, at(2, stop), model=model)
    assert f"cannot write to {root}/train/events" in message
    assert "training goes on without the log" in message
    assert [report.step for report in callback.reports] == [0, 1, 2, 3]
    np.testing.assert_equal(model.get_weights(), plain.get_weights())
    assert random.random() == following  # though botocore draws from it how long it waits before it tries again
    with pytest.raises(OSError, match="cannot write the log"):  # where a user can still do something
        train(model, callback)
    start()
    assert steps(download(store, f"{root}/train/", tmp_path / "before")) == [0, 1]
    assert train(model, callback) == []
    assert steps(download(store, f"{root}/train/", tmp_path / "after")) == [0, 1, 4, 5, 6, 7]
