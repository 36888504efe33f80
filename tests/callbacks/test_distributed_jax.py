"""LayerStatsCallback under `keras.distribution`: the figures of the global batch, training unchanged, one log."""

import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="keras.distribution trains on JAX")

QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# How one process trains: with which distribution, on which part of each batch. Prints a line of JSON for each.
TRAINING = """
import json, sys
from pathlib import Path
import keras
import numpy as np

processes, process, address, log_dir = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if processes > 1:
    keras.distribution.initialize(address, processes, process)
from keras_initkit.callbacks import LayerStatsCallback

rng = np.random.default_rng(0)
x, y = rng.standard_normal((32, 8, 8, 3)).astype("float32"), rng.integers(0, 4, 32)
size = 16 // processes  # rows of each global batch that this process feeds
rows = [start + process * size + row for start in (0, 16) for row in range(size)]
x, y = x[rows], y[rows]


def train(distribution, callbacks):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    keras.distribution.set_distribution(distribution)
    layers = keras.layers
    positive = keras.initializers.RandomUniform(0.01, 0.1)  # what is wrongly taken in shows as a minimum of 0
    model = keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(8, 3, activation="relu", kernel_initializer=positive, name="conv"),
        layers.BatchNormalization(name="norm"), layers.Flatten(), layers.Dense(16, "tanh", name="wide"),
        layers.Dense(4, name="out"),
    ])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(x, y, batch_size=size, epochs=1, shuffle=False, verbose=0, callbacks=callbacks).history
    variables = [*model.variables, *model.optimizer.variables]
    return [np.asarray(each.value.addressable_data(0)).tobytes().hex() for each in variables], history


def data_parallel():
    devices = keras.distribution.list_devices()
    # Each process feeds a part of its own.
    return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)


def model_parallel():
    mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], keras.distribution.list_devices())
    layout = keras.distribution.LayoutMap(mesh)
    layout["conv/kernel"] = (None, None, None, "model")
    layout["wide/kernel"] = ("model", None)
    layout["wide/bias"] = ("model",)
    layout["out/kernel"] = ("batch", "model")
    return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)


def on_one_device():
    return None


for make in [on_one_device, data_parallel, model_parallel] if processes == 1 else [data_parallel]:
    name = make.__name__
    plain = train(make(), [])
    callback = LayerStatsCallback(f"{log_dir}/{name}", update_freq="batch", sample_size=None, on_finding="ignore")
    same = train(make(), [callback]) == plain
    figures = [[[*row.tap[:2], row.moments.to_dict(), row.dead_units] for row in one.rows] for one in callback.reports]
    print(json.dumps({"name": name, "same": same, "figures": figures}))
"""


def start(tmp_path, processes, process, devices, address="-"):
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICK_COMPILATION}",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, str(script), str(processes), str(process), address, str(tmp_path / "logs")]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=os.getcwd()
    )


def results_of(process):
    try:
        out, error = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, error
    results = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {result["name"]: result for result in results}


def files_of(directory):
    return sorted(path.name for path in directory.rglob("events.*"))


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory):
    return results_of(start(tmp_path_factory.mktemp("one"), 1, 0, devices=4))


def assert_equal(one, other):
    """Means relative to the tensor's own size, for those of gradients nearly cancel."""
    assert len(one) == len(other) == 2  # batches
    for step, (rows, others) in enumerate(zip(one, other, strict=True)):
        assert [row[:2] for row in rows] == [row[:2] for row in others]
        assert len(rows) == 5 * 4
        for (kind, layer, moments, dead), (_, _, expected, dead_expected) in zip(rows, others, strict=True):
            where = f"{kind} of {layer}, step {step}"
            assert (moments["count"], moments["nonfinite"]) == (expected["count"], 0), where
            assert moments["m2"] == pytest.approx(expected["m2"], rel=1e-5), where
            size = np.sqrt(expected["m2"] / expected["count"])
            for name in ("mean", "minimum", "maximum"):
                assert moments[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5 * size), (where, name)
            assert dead == pytest.approx(dead_expected), where


@pytest.mark.parametrize("name", ["data_parallel", "model_parallel"])
def test_figures_are_those_of_the_global_batch(in_one_process, name):
    assert in_one_process[name]["same"], "training has changed"
    assert_equal(in_one_process[name]["figures"], in_one_process["on_one_device"]["figures"])


def test_two_processes_have_the_same_figures_and_one_log(in_one_process, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [start(tmp_path, 2, process, 2, address) for process in range(2)]
    for results in map(results_of, processes):
        assert results["data_parallel"]["same"], "training has changed"
        assert_equal(results["data_parallel"]["figures"], in_one_process["on_one_device"]["figures"])
    assert len(files_of(tmp_path / "logs")) == 1
