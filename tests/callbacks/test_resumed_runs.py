"""A run that goes on: in a second process, from a backup or with `initial_epoch`, and in a second fit."""

import signal

import keras
import numpy as np
import pytest
from helpers import read_events, run_python

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.callbacks._progress import steps_done

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
    return [event.step for event in read_events(log_dir / "train").Scalars("update_ratio/out")]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)},
        {"optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())},
        pytest.param(
            {"steps_per_execution": 5},  # Keras 3.3.3 cannot run a part of a chunk
            marks=pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras refuses it on PyTorch"),
        ),
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


def with_backup(place, *callbacks):
    """The backup after the others: what it restores is not there yet when they begin."""
    callback = LayerStatsCallback(place / "logs", "batch")
    fit(small_model(), callback, *callbacks, keras.callbacks.BackupAndRestore(place / "backup"), epochs=3)
    return callback


DIES = """
    import os, pathlib, signal, sys
    from test_resumed_runs import *

    def die(batch, logs):
        if steps_done(dying.model) == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    dying = keras.callbacks.LambdaCallback(on_train_batch_end=die)
    with_backup(pathlib.Path(sys.argv[1]), dying)
"""


@pytest.mark.one_backend
def test_after_a_kill_another_process_goes_on_with_the_log(tmp_path):
    run_python("-c", DIES, tmp_path, status=-signal.SIGKILL)
    assert logged(tmp_path / "logs") == list(range(7))
    second = with_backup(tmp_path)  # the second epoch, of five steps, has to be done again
    assert [report.step for report in second.reports] == list(range(5, 15))
    assert logged(tmp_path / "logs") == list(range(15))
    assert len(list((tmp_path / "logs" / "train").iterdir())) == 2


def test_a_saved_model_goes_on_with_the_log(tmp_path):
    model, logs = small_model(), tmp_path / "logs"
    fit(model, LayerStatsCallback(logs, "batch"), epochs=2)
    model.save(tmp_path / "model.keras")
    second = LayerStatsCallback(logs, "batch")
    fit(keras.models.load_model(tmp_path / "model.keras"), second, epochs=3, initial_epoch=2)
    assert [report.step for report in second.reports] == list(range(10, 15))
    assert logged(logs) == list(range(15))
    assert len(list((logs / "train").iterdir())) == 2
