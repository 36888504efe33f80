"""Logs, a real TensorBoard server on the loopback address, and a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
import warnings
from importlib import metadata

import keras
import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.callbacks._layers_record import write_layers

HOSTILE = '<img src=x onerror="window.hacked=1">/\'; alert(1) //"</script><script>window.hacked=2</script>/ünï→😀'
THEORY = {"activation_variance": [1.0, 2.0]}


def write_matrix(directory, values, layers, statistic="activation_variance"):
    """Writes scalars of shape `(layers, steps)`, fast: one event for each step, of which only the values change."""
    EventLog(directory)  # makes a file with its first record
    (name,) = [each for each in os.listdir(directory) if "tfevents" in each]
    event = Event(wall_time=1.0)
    for layer in layers:
        event.summary.value.add(tag=f"{statistic}/{layer}", simple_value=0.0)
    with open(os.path.join(directory, name), "ab") as file:
        writer = RecordWriter(file)
        for step, column in enumerate(np.transpose(values)):
            event.step = step
            for value, number in zip(event.summary.value, column.tolist(), strict=True):
                value.simple_value = number
            writer.write(event.SerializeToString())


def train(directory, initializer):
    """Trains ten layers for six steps with the callback, which it returns."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(96, 16)).astype("float32")
    layers = [
        keras.layers.Dense(16, "relu", name=f"block_{i // 3}_dense_{i % 3}", kernel_initializer=initializer)
        for i in range(9)
    ]
    model = keras.Sequential([keras.Input((16,)), *layers, keras.layers.Dense(1, name="head")])
    model.compile("sgd", "mse", run_eagerly=keras.backend.backend() == "tensorflow")
    stats = LayerStatsCallback(directory, "batch", histogram_freq=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, x[:, :1], epochs=2, batch_size=32, verbose=0, callbacks=[stats])
    return stats


@pytest.fixture(scope="session")
def logs(tmp_path_factory):
    """A directory of runs, and the callbacks that wrote two of them."""
    root = tmp_path_factory.mktemp("layers_tab")
    callbacks = {
        "healthy": train(root / "healthy", "he_normal"),
        "exploding": train(root / "exploding", keras.initializers.RandomNormal(stddev=2.0)),
    }
    hostile = os.fspath(root / "hostile" / "<b>run</b>")
    write_matrix(hostile, [[1.0, 1.0], [1e-4, 1e-4]], [HOSTILE, "plain"])
    record = {
        "version": 1,
        "statistics": ["activation_variance"],
        "layers": [[HOSTILE, HOSTILE], ["plain", "Dense"]],
        "theory": THEORY,
        "findings": [
            {
                "kind": "vanishing_activation",
                "layer": HOSTILE,
                "step": 1,
                "severity": "error",
                "evidence": {HOSTILE: HOSTILE},
                "remedy": HOSTILE,
                "consequence_of": "",
                "caused_in": "",
                "message": HOSTILE,
            }
        ],
        "measured": 2,
    }
    write_layers(EventLog(hostile), 1, record)
    write_matrix(os.fspath(root / "long"), np.ones((2, 1100)), ["first", "second"])
    draw = np.random.default_rng(0).normal(size=(1000, 1000)) * 0.2
    big = 10.0 ** np.where(np.arange(1000)[:, None] == 700, 8.0, draw)
    write_matrix(os.fspath(root / "big"), big, [f"stage_{i // 50}_dense_{i}" for i in range(1000)])
    return root, callbacks


@pytest.fixture(scope="session")
def hostile():
    """A name of a layer that stands in the logs."""
    return HOSTILE


@pytest.fixture(scope="session")
def server(logs, tmp_path_factory):
    """Address of `tensorboard` as a user starts it, in a process of its own."""
    path = os.environ.get("PYTHONPATH", "")
    if not [each for each in metadata.entry_points(group="tensorboard_plugins") if "keras_initkit" in each.value]:
        # A checkout that was installed before the plugin was there: what setup.cfg says, where Python looks first.
        found = tmp_path_factory.mktemp("metadata") / "keras_initkit-0.dist-info"
        found.mkdir()
        (found / "METADATA").write_text("Metadata-Version: 2.1\nName: keras-initkit\nVersion: 0\n")
        (found / "entry_points.txt").write_text(
            "[tensorboard_plugins]\nkeras_initkit = keras_initkit_tensorboard:LayersPlugin\n"
        )
        path = os.pathsep.join([str(found.parent), *sys.path, path])
    log = tmp_path_factory.mktemp("server") / "output"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs[0]), "--host", "127.0.0.1", "--port", "0"]
    with open(log, "w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"}
        )
    try:
        address = wait_for(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), log)[0]
        # The server reads the logs while it serves.
        runs = f"{address}/data/plugin/keras_initkit_layers/runs"
        wait_for(lambda: {"last_step": 999, "layers": 1000}.items() <= (_runs(runs).get("big") or {}).items(), log)
        yield address
    finally:
        process.kill()
        process.wait()


def _runs(address):
    with urllib.request.urlopen(address) as answer:
        return {each["run"]: each for each in json.load(answer)["items"]}


def wait_for(condition, log, seconds=180):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise TimeoutError(log.read_text())


@pytest.fixture(scope="session")
def driver():
    """Chromium without a window. In CI it must be there; elsewhere what is missing is said."""
    browser, own = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    missing = "chromium and chromedriver are not installed (apt-get install chromium chromium-driver)"
    if not browser or not own:
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)(missing)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1400,900"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(own))  # with its path nothing is downloaded
    started.set_script_timeout(30)
    yield started
    started.quit()
