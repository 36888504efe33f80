"""A run that goes on: in a second process, from a backup or with `initial_epoch`, and in a second fit."""

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.callbacks.progress import steps_done

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((50, 4)).astype("float32"), RNG.standard_normal((50, 2)).astype("float32")


def small_model(optimizer="adam", **options):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")])
    model.compile(optimizer, "mse", **options)
    return model


def fit(model, *callbacks, epochs=1, **options):
    model.fit(X, Y, batch_size=10, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks), **options)


def logged(log_dir):
    accumulator = EventAccumulator(str(log_dir / "train"), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [event.step for event in accumulator.Scalars("weight_variance/out")]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)},
        {"optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())},
        {"steps_per_execution": 5},  # Keras 3.3.3 cannot run a part of a chunk
        {"run_eagerly": True},
    ],
    ids=["adam", "accumulation", "loss-scale", "five-at-once", "eager"],
)
def test_the_optimizer_counts_every_step(options):
    optimizer = options.pop("optimizer", lambda: "adam")()
    model = small_model(optimizer, **options)
    assert steps_done(model) == 0
    fit(model)
    assert steps_done(model) == 5
    fit(model)
    assert steps_done(model) == 10


def test_models_without_an_optimizer_count_from_zero():
    assert steps_done(keras.Sequential()) == 0


def test_a_new_callback_goes_on_where_the_optimizer_is():
    model, callback = small_model(), LayerStatsCallback(None, "batch")
    fit(model)
    fit(model, callback)
    fit(model, callback)
    assert [report.step for report in callback.reports] == list(range(5, 15))


def test_a_new_optimizer_does_not_set_the_count_back():
    model, callback = small_model(), LayerStatsCallback(None, "batch")
    fit(model, callback)
    model.compile("sgd", "mse")
    fit(model, callback)
    assert [report.step for report in callback.reports] == list(range(10))
    callback.start_run(None)
    model.compile("sgd", "mse")
    fit(model, callback)
    assert [report.step for report in callback.reports] == list(range(5))


IN_A_PROCESS = """
    import json, os, pathlib, signal, sys
    sys.path.insert(0, os.path.dirname(sys.argv[1]))
    from test_resumed_runs import *

    place, way, dies_at = pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

    def die(batch, logs):
        if steps_done(callback.model) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    callback = LayerStatsCallback(place / "logs", "batch")
    dying = keras.callbacks.LambdaCallback(on_train_batch_end=die)
    if way == "backup":
        # After the others: what it restores is not there yet when they begin.
        fit(small_model(), callback, dying, keras.callbacks.BackupAndRestore(place / "backup"), epochs=3)
    elif dies_at:
        model = small_model()
        fit(model, callback, epochs=2)
        model.save(place / "model.keras")
    else:
        fit(keras.models.load_model(place / "model.keras"), callback, epochs=3, initial_epoch=2)
    print(json.dumps([report.step for report in callback.reports]))
"""


@pytest.mark.parametrize("way", ["backup", "initial_epoch"])
def test_another_process_goes_on_with_the_log(tmp_path, way):
    def process(dies_at):
        script = textwrap.dedent(IN_A_PROCESS)
        command = [sys.executable, "-c", script, __file__, str(tmp_path), way, str(dies_at)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    first = process(7)  # in the second epoch of five steps, which the backup has to do again
    assert first.returncode == (-9 if way == "backup" else 0), first.stderr
    if way == "backup":
        assert logged(tmp_path / "logs") == list(range(7))
    second = process(0)
    assert second.returncode == 0, second.stderr
    begin = 5 if way == "backup" else 10
    assert json.loads(second.stdout.splitlines()[-1]) == list(range(begin, 15))
    assert logged(tmp_path / "logs") == list(range(15))
    assert len(list((tmp_path / "logs" / "train").iterdir())) == 2
