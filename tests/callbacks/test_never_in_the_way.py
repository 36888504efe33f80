"""What the callback meets that nobody has planned: it costs a warning, never the training."""

import importlib
import threading
import warnings

import keras
import matplotlib.figure
import numpy as np
import pytest
from helpers import events, mlp
from keras import layers as L

from keras_initkit import probe
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.callbacks._kept_reports import KeptReports
from keras_initkit.callbacks._progress import steps_done
from keras_initkit.report import SignalReport

BACKEND = keras.backend.backend()
METER = importlib.import_module(f"keras_initkit.capture.backends.{BACKEND}.step").STEP_METER
X = np.random.default_rng(0).standard_normal((16, 6)).astype("float32")
Y = np.arange(16) % 3
# What `StepMeter` asks of itself and of a backend while it measures; the rest only calls these.
PIECES = [
    "_resolve_taps", "_optimizers", "_tapped_layer", "_tapped_optimizer", "_loss_unscaling", "_begin_step", "_end_step",
    "_read", "_read_signal", "_is_readable", "_has_whole_gradient", "_dense", "_kept", "_before_training", "_finished",
    "_reduce", "_rows",
]  # fmt: skip


def fit(*callbacks, model=None, epochs=1):
    """Returns weights and the warnings of the callback."""
    keras.utils.set_random_seed(1)
    if model is None:
        model = mlp()
        model.compile("adam", "sparse_categorical_crossentropy")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model.get_weights(), [str(w.message) for w in caught if "LayerStatsCallback" in str(w.message)]


@pytest.fixture(scope="module")
def plain():
    return fit()[0]


@pytest.mark.parametrize("piece", PIECES)
def test_an_error_while_measuring_costs_one_warning(piece, plain, monkeypatch):
    def broken(*args, **kwargs):
        raise TypeError("a private name was renamed")

    monkeypatch.setattr(METER, piece, broken)
    callback = LayerStatsCallback(None, "batch", on_finding="ignore")
    weights, said = fit(callback)
    np.testing.assert_equal(weights, plain)
    assert callback.reports == []
    (message,) = said
    assert "could not be measured (TypeError: a private name was renamed)" in message
    assert "nothing more is measured" in message


def test_an_error_of_the_step_itself_is_that_of_the_step(recwarn):
    model = mlp()
    model.compile("adam", lambda y, p: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.fit(X, Y, verbose=0, callbacks=[LayerStatsCallback(None, on_finding="ignore")])
    assert "could not be measured" not in str([w.message for w in recwarn])


def test_what_was_measured_before_an_error_stays(plain, monkeypatch):
    callback, real = LayerStatsCallback(None, "batch", on_finding="ignore"), METER._rows

    def broken(self, meter):
        if callback.reports:
            raise KeyError("rows")
        return real(self, meter)

    monkeypatch.setattr(METER, "_rows", broken)
    weights, said = fit(callback)
    np.testing.assert_equal(weights, plain)
    assert [report.step for report in callback.reports] == [0]
    assert len(said) == 1


def test_a_model_without_weights():
    model = keras.Sequential([keras.Input((6,)), L.Activation("softmax")])
    model.compile("sgd", "mse")
    callback = LayerStatsCallback(None, on_finding="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "The model does not have any trainable weights")
        model.fit(X, X, verbose=0, callbacks=[callback])
    assert all(not report.rows for report in callback.reports)


@pytest.mark.parametrize("eager", [False, True])
def test_a_model_whose_own_method_takes_no_force(eager):
    class Own(keras.Sequential):
        def make_train_function(self):
            return super().make_train_function()

    model = Own([keras.Input((6,)), L.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=eager)
    callback = LayerStatsCallback(None, on_finding="ignore")
    assert fit(callback, model=model)[1] == []
    assert len(callback.reports) == 1


def loop_by_hand(model, callback, step):
    around = keras.callbacks.CallbackList([callback], model=model)
    around.on_train_begin()
    around.on_epoch_begin(0)
    for batch in range(3):
        around.on_train_batch_begin(batch)
        step()
        around.on_train_batch_end(batch)
    around.on_train_end()


@pytest.mark.one_backend
def test_a_loop_that_runs_no_training_function(recwarn):
    model = mlp()
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.train_function
    loop_by_hand(model, LayerStatsCallback(None, "batch"), lambda: None)
    said = [str(w.message) for w in recwarn if "LayerStatsCallback" in str(w.message)]
    assert len(said) == 1
    assert "no step was measured, of 3 that were due" in said[0]
    assert model.train_function is before


def test_a_loop_of_train_on_batch_is_measured():
    model = mlp()
    model.compile("adam", "sparse_categorical_crossentropy")
    callback = LayerStatsCallback(None, "batch", on_finding="ignore")
    loop_by_hand(model, callback, lambda: model.train_on_batch(X, Y))
    assert [report.step for report in callback.reports] == [0, 1, 2]


@pytest.mark.one_backend
def test_steps_of_own_optimizers():
    model = mlp()
    assert steps_done(model) == 0
    model.both = {"judge": keras.optimizers.Adam(), "others": [keras.optimizers.SGD()]}
    for optimizer, steps in ((model.both["judge"], 20), (model.both["others"][0], 4)):
        optimizer.build(model.trainable_variables)
        optimizer.iterations.assign(steps)
    assert steps_done(model) == 4  # of a critic that steps five times as often
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    assert steps_done(model) == 4
    model.optimizer.iterations.assign(7)
    assert steps_done(model) == 7


# Where it goes


def texts(directory):
    (path,) = (directory / "train").iterdir()
    values = [value for event in events(path) for value in event.summary.value]
    return {value.tag: value.tensor.string_val for value in values}


@pytest.mark.one_backend
def test_a_run_without_a_diagnosis_does_not_say_that_nothing_was_found(tmp_path):
    fit(LayerStatsCallback(tmp_path / "a", on_finding="ignore"))
    fit(LayerStatsCallback(tmp_path / "b"))
    assert b"The diagnosis found nothing" not in texts(tmp_path / "a")["layers/summary"][0]
    assert b"The diagnosis found nothing" in texts(tmp_path / "b")["layers/summary"][0]


@pytest.mark.one_backend
def test_a_picture_that_fails_is_no_write_error(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise KeyError("a bug in the plot")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", broken)
    _, (message,) = fit(LayerStatsCallback(tmp_path, on_finding="ignore"))
    assert "could not be made (KeyError: 'a bug in the plot')" in message
    assert "layers/summary" in texts(tmp_path)


@pytest.mark.one_backend
def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LayerStatsCallback("~/logs").log_dir == str(tmp_path / "logs")


@pytest.mark.one_backend
def test_a_second_run_in_a_directory_is_noticed(tmp_path):
    def callback(name="logs"):
        return LayerStatsCallback(tmp_path / name, on_finding="ignore")

    model = mlp()
    model.compile("adam", "sparse_categorical_crossentropy")
    assert fit(callback(), callback(), model=model)[1] == []  # two at a time are one run
    assert fit(callback(), model=model)[1] == []  # it goes on
    _, (message,) = fit(callback())
    assert f"{tmp_path / 'logs' / 'train'} already holds a run" in message
    assert fit(callback("others"))[1] == []


# Threads


class Slow(L.Layer):
    def __init__(self, event, **options):
        super().__init__(**options)
        self.event = event

    def call(self, x):
        if not isinstance(x, keras.KerasTensor):  # while it is traced
            self.event()
        return x

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.one_backend
@pytest.mark.skipif(BACKEND != "tensorflow", reason="functions that run eagerly in all threads")
def test_a_probe_leaves_other_threads_and_the_model_alone():
    import tensorflow as tf

    inside, go_on, seen = threading.Event(), threading.Event(), []

    def wait():
        if threading.current_thread() is not threading.main_thread():
            seen.append(bool(tf.config.functions_run_eagerly()))
            inside.set()
            assert go_on.wait(60)

    model = keras.Sequential([keras.Input((6,)), L.Dense(4, name="a"), Slow(wait, name="slow"), L.Dense(2, name="b")])
    expected = [row.tap for row in probe(model, X).rows]
    reports = []
    thread = threading.Thread(target=lambda: reports.append(probe(model, X)))
    thread.start()
    assert inside.wait(60)
    try:
        assert not tf.config.functions_run_eagerly()
        model(X)  # is no part of the other thread's measurement
        reports.append(probe(model, X))  # ends before the one that began before it
    finally:
        go_on.set()
        thread.join(60)
    assert seen == [True]
    assert [[row.tap for row in report.rows] for report in reports] == [expected] * 2
    assert not any("call" in vars(layer) for layer in model.layers)
    assert tf.config.functions_run_eagerly() is False


def test_two_parts_of_one_name_are_measured_apart():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.left, self.right = (keras.Sequential([L.Dense(4, name="dense")], name="twin") for _ in range(2))
            self.head = L.Dense(3, "softmax", name="head")

        def call(self, x):
            return self.head(self.left(x) + self.right(x))

    keras.utils.set_random_seed(0)
    model = Twins()
    model(X)
    model.right.layers[0].kernel.assign(2 * model.right.layers[0].kernel)
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = [np.var(keras.ops.convert_to_numpy(part.layers[0].kernel)) for part in (model.left, model.right)]
    callback = LayerStatsCallback(None, on_finding="ignore")
    assert fit(callback, model=model)[1] == []
    variances = callback.reports[0].statistic("weight_variance")
    assert list(variances) == ["twin/dense", "twin_1/dense", "head"]
    np.testing.assert_allclose(list(variances.values())[:2], before, rtol=1e-5)


@pytest.mark.one_backend
def test_a_long_training_keeps_a_bounded_number_of_reports():
    """Of 100,000: the first, the last, and between them at even distances, half of the bound at least."""
    kept = KeptReports(keep=50)
    for step in range(100_000):
        kept.add(SignalReport((), step))
    steps = [report.step for report in kept]
    assert (kept.added, steps[0], steps[-1]) == (100_000, 0, 99_999)
    assert 25 <= len(steps) <= 50
    assert len(set(np.diff(steps[:-1]))) == 1
    assert len(kept._numbers) == len(kept)
