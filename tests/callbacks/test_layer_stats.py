"""LayerStatsCallback in real fits: what it leaves in the log, and that it leaves nothing else."""

import os
import re

import keras
import numpy as np
import pytest
from helpers import default_tags, events, read_events, together_tags

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.report._scalars import DEFAULT_STATISTICS

BACKEND = keras.backend.backend()
slow_on_jax = pytest.mark.skipif(BACKEND == "jax", reason="compiles for minutes; test_step_meter_jax.py measures steps")

AT_THE_END = {"layers/variance", "layers/summary"}
LAYERS = "keras_initkit/layers"  # which only the tab of this package shows
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((70, 6)).astype("float32"), RNG.integers(0, 3, 70)


def small_model():
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "relu", name="first")], name="inner")
    model = keras.Sequential([keras.Input((6,)), inner, keras.layers.BatchNormalization(name="norm")])
    model.add(keras.layers.Dropout(0.2, seed=1, name="drop"))
    model.add(keras.layers.Dense(3, "softmax", name="out"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(X, Y, batch_size=20, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


@slow_on_jax
def test_exact_tags_and_steps_over_two_fits(tmp_path):
    model, callback = small_model(), LayerStatsCallback(tmp_path, update_freq=3)
    fit(model, callback)
    fit(model, callback, epochs=1)

    expected = default_tags("inner/first", "norm", "out")
    log = read_events(tmp_path / "train")
    assert set(log.Tags()["scalars"]) == expected | together_tags(signal=())
    assert set(log.Tags()["tensors"]) == {"custom_scalars__config__", LAYERS, *AT_THE_END}
    # 4 batches an epoch, the last one of 10 examples; 8 steps in the first fit, 4 in the second.
    for tag in expected | together_tags(signal=()):
        assert [event.step for event in log.Scalars(tag)] == [0, 3, 6, 9]
    assert [(report.step, report.epoch) for report in callback.reports] == [(0, 0), (3, 0), (6, 1), (9, 0)]
    for report in callback.reports:
        assert report.layers == ["inner/first", "norm", "out"]
        assert set(report.scalars(DEFAULT_STATISTICS)) == expected
    for tag in expected:
        written = [event.value for event in log.Scalars(tag)]
        np.testing.assert_array_equal(
            written, np.float32([report.scalars(DEFAULT_STATISTICS)[tag] for report in callback.reports])
        )
    # One file for both fits, and nothing else.
    assert [len(files) for _, _, files in os.walk(tmp_path)] == [0, 1]


@slow_on_jax
def test_one_event_for_all_values_of_a_step(tmp_path):
    fit(small_model(), LayerStatsCallback(tmp_path, update_freq="batch"), epochs=1)
    (path,) = (tmp_path / "train").iterdir()
    sizes = [len(event.summary.value) for event in events(path) if event.summary.value]
    scalars = len(default_tags("inner/first", "norm", "out") | together_tags(signal=()))
    # The layout, a step, what the tab "Layers" reads, three steps, text and picture, and the tab's again.
    assert sizes == [1, scalars, 1, *[scalars] * 3, 1, 1, 1]


@slow_on_jax
def test_training_is_the_same_to_the_last_bit():
    outcomes = []
    for callbacks in ([], [LayerStatsCallback(None, 2)]):  # plain and measured steps
        keras.utils.set_random_seed(7)
        model = small_model()
        history = fit(model, *callbacks, validation_split=0.2).history
        outcomes.append((history, [v.numpy() for v in model.variables + model.optimizer.variables], np.random.rand()))  # noqa: NPY002
    (plain, weights, after), (watched, same_weights, same_after) = outcomes
    assert plain == watched
    assert after == same_after
    for a, b in zip(weights, same_weights, strict=True):
        np.testing.assert_array_equal(a, b)


@slow_on_jax
def test_a_plain_step_runs_what_keras_compiled():
    model, seen = small_model(), []
    spy = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(model.train_function))
    fit(model, spy, LayerStatsCallback(None, update_freq=2), epochs=1)
    compiled = model.train_function
    assert seen == [compiled] * 4  # put back before the batch ends
    fit(model, LayerStatsCallback(None), epochs=1)
    assert model.train_function is compiled
    assert "train_step" not in vars(model)
    assert "apply" not in vars(model.optimizer)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_the_first_step_shows_the_model_as_initialized():
    model, callback = small_model(), LayerStatsCallback(None)
    kernel = model.get_layer("out").kernel.numpy().astype("float64")
    fit(model, callback)
    assert callback.reports[0].statistic("weight_variance")["out"] == pytest.approx(kernel.var(), rel=1e-5)
    assert callback.reports[1].step == 4


def test_frozen_layers_have_no_gradient():
    model, callback = small_model(), LayerStatsCallback(None)
    model.get_layer("inner").trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    fit(model, callback)
    (tags,) = {frozenset(report.scalars()) for report in callback.reports}
    assert "weight_gradient_variance/inner/first" not in tags
    assert "weight_variance/inner/first" in tags
    assert "weight_gradient_variance/out" in tags


@slow_on_jax
def test_an_error_in_a_measured_step_leaves_the_model_as_it_was():
    model = small_model()

    class Breaks(keras.losses.Loss):
        def call(self, y_true, y_pred):
            raise RuntimeError("the loss is broken")

    model.compile("sgd", Breaks())
    with pytest.raises(RuntimeError, match="the loss is broken"):
        fit(model, LayerStatsCallback(None))
    assert "train_step" not in vars(model)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    model.compile("sgd", "sparse_categorical_crossentropy")
    fit(model, LayerStatsCallback(None))


@slow_on_jax
def test_what_was_measured_before_a_crash_is_on_disk(tmp_path):
    def crash(batch, logs):
        if batch == 2:
            raise KeyboardInterrupt

    stats = LayerStatsCallback(tmp_path, update_freq="batch")
    with pytest.raises(KeyboardInterrupt):
        fit(small_model(), stats, keras.callbacks.LambdaCallback(on_train_batch_end=crash))
    steps = [event.step for event in read_events(tmp_path / "train").Scalars("activation_variance/out")]
    assert steps == [0, 1, 2]


@slow_on_jax
def test_a_full_disk_does_not_end_training(tmp_path, monkeypatch):
    stats = LayerStatsCallback(tmp_path, update_freq="batch")

    def full(step, values):
        raise OSError(28, "No space left on device")

    def fill_the_disk(batch, logs):
        monkeypatch.setattr(stats._record.log.events, "scalars", full) if batch == 1 else None

    filler = keras.callbacks.LambdaCallback(on_train_batch_begin=fill_the_disk)
    with pytest.warns(UserWarning, match=r"cannot write to .*No space left on device.*training goes on"):
        history = fit(small_model(), filler, stats, epochs=1)
    assert len(history.history["loss"]) == 1
    assert len(stats.reports) == 4


@slow_on_jax
def test_a_log_directory_that_cannot_be_written_stops_before_training(tmp_path):
    (tmp_path / "logs").write_text("a file")
    model = small_model()
    before = model.get_weights()
    with pytest.raises(OSError, match="logs"):
        fit(model, LayerStatsCallback(tmp_path / "logs"))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@slow_on_jax
@pytest.mark.skipif(BACKEND == "torch", reason="Keras runs one step at a time on PyTorch")
def test_several_steps_at_once():
    model, callback = small_model(), LayerStatsCallback(None, update_freq="batch")
    model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=2)
    fit(model, callback, epochs=1)
    assert len(callback.reports) == 2
    tags = default_tags("inner/first", "norm", "out")
    assert all(set(report.scalars(DEFAULT_STATISTICS)) == tags for report in callback.reports)


@slow_on_jax
def test_beside_keras_own_callback_the_runs_are_shared(tmp_path):
    pytest.importorskip("tensorflow")  # which the callback of Keras writes with
    fit(small_model(), LayerStatsCallback(tmp_path), keras.callbacks.TensorBoard(tmp_path), validation_split=0.2)
    tags = set()
    for path in (tmp_path / "train").glob("events*"):
        log = read_events(path)
        tags |= {*log.Tags()["tensors"], *log.Tags()["scalars"]}
    assert {"epoch_loss", "activation_variance/out"} <= tags


def test_a_report_refuses_an_unknown_statistic():
    from keras_initkit.signal import SignalReport

    with pytest.raises(ValueError, match="statistic: got 'variance', expected one of 'activation_mean'"):
        SignalReport(()).statistic("variance")


@slow_on_jax
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("inner", ["inner/first"]),
        (["out", re.compile("no")], ["norm", "out"]),
        (lambda layer: isinstance(layer, keras.layers.Dense), ["inner/first", "out"]),
    ],
    ids=["name", "list", "predicate"],
)
def test_chosen_layers(tmp_path, layers, expected):
    model, callback = small_model(), LayerStatsCallback(tmp_path, layers=layers)
    fit(model, callback, epochs=1)
    assert [report.layers for report in callback.reports] == [expected]
    assert set(read_events(tmp_path / "train").Tags()["scalars"]) == default_tags(*expected) | together_tags(signal=())


@slow_on_jax
def test_layers_that_fit_nothing_are_refused_before_the_first_step():
    model = small_model()
    before = model.get_weights()
    with pytest.raises(ValueError, match="layers: got 'outt', which matches no layer with weights; near names: out"):
        fit(model, LayerStatsCallback(None, layers="outt"))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@slow_on_jax
def test_two_callbacks_each_see_the_layers_that_they_chose():
    def weights(*callbacks):
        keras.utils.set_random_seed(3)
        model = small_model()
        fit(model, *callbacks)
        return model.get_weights()

    alone, all_layers = LayerStatsCallback(None, 3), LayerStatsCallback(None, 3)
    plain = weights()
    weights(alone)
    out, inner, by_itself = (LayerStatsCallback(None, 3, layers=name) for name in ("out", "inner", "inner"))
    for trained in (weights(out, inner, all_layers), weights(by_itself)):
        for mine, theirs in zip(plain, trained, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert [report.layers for report in out.reports] == 3 * [["out"]]
    assert [report.layers for report in inner.reports] == 3 * [["inner/first"]]
    assert [each.rows for each in all_layers.reports] == [each.rows for each in alone.reports]
    chosen = {tap: moments for tap, moments in alone.reports[2].moments.items() if tap.layer == "inner/first"}
    assert inner.reports[2].moments == by_itself.reports[2].moments == chosen
