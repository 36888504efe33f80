"""What the callback reads of labels and inputs: the batches that `fit` takes, once, and nothing changes."""

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import LayerStatsCallback

RNG = np.random.default_rng(0)
X = RNG.standard_normal((96, 6)).astype("float32")
Y = RNG.permutation(np.arange(96) % 3)
L = keras.layers


def model_of(units=3, activation="softmax", loss="sparse_categorical_crossentropy"):
    keras.utils.set_random_seed(2)
    layers = [L.Dense(8, "relu"), L.Dropout(0.2), L.Dense(units, activation, name="head")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("adam", loss)
    return model


def fit(model, x=X, y=Y, update_freq="batch", **options):
    callback = LayerStatsCallback(None, update_freq, on_finding=lambda finding: None)
    given = {"batch_size": 16, "verbose": 0, "callbacks": [callback], **options}
    model.fit(x, y, **given) if y is not None else model.fit(x, **given)
    return callback


def kinds(callback):
    return [(each.kind, each.layer, each.severity) for each in callback.findings]


def test_a_head_that_does_not_fit_is_found_at_the_first_step():
    callback = fit(model_of(3, "relu"))
    assert ("head_loss_mismatch", "head", "error") in kinds(callback)
    assert callback.findings[0].step == 0


def test_labels_are_those_of_the_batches():
    callback = fit(model_of(), shuffle=False, epochs=2)
    (output,) = callback.task.outputs
    np.testing.assert_array_equal(output.labels.values.ravel()[:96], Y)
    assert output.labels.batches[:6] == (16,) * 6
    assert callback.task.inputs[0].examples == 160  # ten batches
    np.testing.assert_array_equal(callback.task.inputs[0].least, X.min(0))


def test_targets_out_of_range_and_sorted_labels():
    assert ("target_out_of_range", "head", "error") in kinds(fit(model_of(1, "tanh", "mse"), y=5 * X[:, :1]))
    ordered = kinds(fit(model_of(), y=np.sort(Y), shuffle=False))
    assert ("unshuffled_labels", "head", "warning") in ordered
    assert "unshuffled_labels" not in [kind for kind, *_ in kinds(fit(model_of(), y=np.sort(Y), shuffle=True))]


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch refuses such labels itself")
def test_examples_without_weight_do_not_count():
    wrong, weight = Y.astype("float32"), np.where(Y == 2, 0.0, 1.0)
    assert ("label_mismatch", "head", "error") in kinds(fit(model_of(1, "sigmoid", "binary_crossentropy"), y=wrong))
    callback = fit(model_of(1, "sigmoid", "binary_crossentropy"), y=wrong, sample_weight=weight)
    assert "label_mismatch" not in [kind for kind, *_ in kinds(callback)]


def test_a_generator_is_consumed_once_and_training_stays_the_same():
    trained = []
    for callbacks in ([], [LayerStatsCallback(None, "batch", on_finding=lambda finding: None)]):
        drawn = []

        def batches(drawn=drawn):
            while True:
                place = 16 * (len(drawn) % 6)
                drawn.append(place)
                yield X[place : place + 16], Y[place : place + 16]

        model = model_of()
        model.fit(batches(), steps_per_epoch=4, epochs=2, verbose=0, callbacks=callbacks)
        trained.append((drawn, model.get_weights()))
    assert trained[0][0][:8] == trained[1][0][:8]  # how many more are fetched ahead is a matter of time
    assert max(len(drawn) for drawn, _ in trained) < 16
    for plain, measured in zip(trained[0][1], trained[1][1], strict=True):
        np.testing.assert_array_equal(plain, measured)


@pytest.mark.parametrize("options", [{"steps_per_execution": 2}, {"run_eagerly": True}, {"jit_compile": True}])
def test_other_ways_to_run_a_step(options):
    if keras.backend.backend() == "torch" and "steps_per_execution" in options:
        pytest.skip("Keras has none on PyTorch")
    model = model_of(3, "relu")
    model.compile("adam", "sparse_categorical_crossentropy", **options)
    assert ("head_loss_mismatch", "head", "error") in kinds(fit(model))


@pytest.mark.parametrize(("momentum", "lags"), [(0.99, True), (0.5, False)])
def test_averages_that_lag_are_found_in_a_run(momentum, lags):
    keras.utils.set_random_seed(0)
    norm = L.BatchNormalization(momentum=momentum, name="bn")
    model = keras.Sequential([keras.Input((6,)), L.Dense(8), norm, L.ReLU(), L.Dense(1)])
    model.compile("adam", "mse")
    assert (("batch_norm_lag", "bn", "warning") in kinds(fit(model, 100 * X, X[:, :1], epochs=2))) == lags
