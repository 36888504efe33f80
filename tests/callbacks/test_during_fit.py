"""LayerStatsCallback beside what else happens in `fit`: other callbacks, interrupts, copies, layers that come later."""

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest
from helpers import Subclassed, mlp
from keras import layers, ops
from training_configurations import X, Y, compiled

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.signal import Moments, Tap

BACKEND = keras.backend.backend()
ON_TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="written for TensorFlow")
if BACKEND == "tensorflow":
    import tensorflow as tf
    from training_configurations_tensorflow import Adversarial

OLD = not hasattr(layers, "RMSNormalization")  # came with Keras 3.9


def fit(model, callbacks, **options):
    return model.fit(X, Y, batch_size=8, verbose=0, callbacks=callbacks, **options)


def steps(callback):
    return [report.step for report in callback.reports]


@ON_TENSORFLOW
def test_subclassed_layers_are_measured_from_the_first_step_on():
    """Their weights exist once the first step has been traced; the outputs against an eager tape in NumPy."""
    keras.utils.set_random_seed(2)
    model, callback = compiled(Subclassed(), "mse"), LayerStatsCallback(None)
    model.fit(X, X[:, :3], batch_size=24, shuffle=False, verbose=0, callbacks=[callback])
    measured = callback.reports[0]
    keras.utils.set_random_seed(2)
    twin = Subclassed()
    twin(X)
    with tf.GradientTape() as tape:
        shared = twin.named["shared"]
        x = twin.several[1](twin.several[0](X))
        outputs = [shared(x)]
        tape.watch(outputs)
        outputs.append(shared(outputs[0]))
        x = ops.expand_dims(outputs[1], 1)
        x = twin.named["last"][0](ops.squeeze(twin.attention(x, x), 1))
        loss = ops.mean(ops.square(x - X[:, :3]))
    gradients = tape.gradient(loss, [*outputs, shared.kernel.value])
    for kind, tensor in {
        "output": outputs,
        "output_gradient": gradients[:2],
        "weight": shared.kernel,
        "weight_gradient": gradients[2],
    }.items():
        expected = Moments.of(np.array([t.numpy() for t in tensor]) if isinstance(tensor, list) else tensor.numpy())
        assert measured.moments[Tap(kind, "shared")].count == expected.count
        assert measured.moments[Tap(kind, "shared")].variance == pytest.approx(expected.variance, rel=1e-5)
    assert "attention/query" in measured.layers
    assert Tap("weight_gradient", "aside") not in measured.moments
    assert "never" not in measured.layers


@ON_TENSORFLOW
def test_a_measured_step_is_traced_once():
    """What Keras makes while it traces a step, slots and metrics, would have TensorFlow trace it again."""

    class Counting(layers.Layer):
        traced = 0

        def call(self, x):
            self.traced += not isinstance(x, keras.KerasTensor)  # as which the structure is read, before the steps
            return x

    def traces(callbacks):
        keras.backend.clear_session()  # names begin at the beginning
        counting = Counting()
        model = keras.Sequential([keras.Input((X.shape[1],)), layers.Dense(8), counting, layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        counting.traced = 0
        model.fit(X[:8], Y[:8], batch_size=8, verbose=0, callbacks=callbacks)
        made = [variable.path for variable in (*model.optimizer.variables, *model.metrics_variables)]
        # For the TensorBoard callback of Keras up to 3.6, the plain step is traced as well.
        return counting.traced, hasattr(model.train_function, "get_concrete_function"), made

    measured, with_plain, paths = traces([LayerStatsCallback(None, "batch")])
    plain, _, expected = traces([])
    assert (measured, plain) == (1 + with_plain, 2)
    assert paths == expected


@ON_TENSORFLOW
def test_every_optimizer_of_a_model_shows_its_gradients():
    model, callback = Adversarial(), LayerStatsCallback(None)
    model.compile()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "LayerStatsCallback: the diagnosis failed")  # the model itself is never built
        model.fit(X, batch_size=24, verbose=0, callbacks=[callback])
    gradients = callback.reports[0].statistic("weight_gradient_variance")
    assert sorted({path.split("/")[0] for path in gradients}) == ["judge", "maker"]


def test_two_callbacks_share_a_measured_step():
    model, often, seldom = compiled(mlp()), LayerStatsCallback(None, 1), LayerStatsCallback(None, 2)
    fit(model, [often, seldom], epochs=2)
    assert steps(often) == [0, 1, 2, 3, 4, 5]
    assert steps(seldom) == [0, 2, 4]
    assert [report.moments for report in often.reports[::2]] == [report.moments for report in seldom.reports]


class Raises(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt


def test_an_interrupt_just_before_a_measured_step_is_forgotten(tmp_path):
    model, callback = compiled(mlp()), LayerStatsCallback(tmp_path, 1)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, Raises()])
    fit(model, [callback])
    assert steps(callback) == [0, 1, 2, 3]
    plain = model.train_function
    fit(model, [])
    assert model.train_function is plain
    assert not hasattr(plain, "__self__")


@pytest.mark.skipif(BACKEND == "jax", reason="Keras on JAX loses a model's variables then, without the callback too")
def test_an_interrupt_in_a_measured_step_leaves_the_plain_function():
    class Interrupted(layers.Layer):
        on = False

        def call(self, x):
            if self.on:
                raise KeyboardInterrupt
            return x

    layer = Interrupted()
    model, callback = compiled(mlp(layer)), LayerStatsCallback(None, 1)
    fit(model, [])
    plain = model.train_function
    layer.on = True
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback])
    assert model.train_function is plain
    assert not any({"call", "add_loss"} & set(vars(each)) for each in model.layers)
    layer.on = False
    fit(model, [callback])
    assert steps(callback) == [3, 4, 5]  # the first fit has trained three


def test_copies_and_pickles():
    model, callback = compiled(mlp()), LayerStatsCallback(None, 2)
    pickle.loads(pickle.dumps(callback))
    fit(model, [callback])
    for twin in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        assert steps(twin) == [0, 2]
        fit(compiled(mlp()), [twin])
        assert steps(twin) == [0, 2, 4]


def test_layers_that_a_model_gains_between_fits():
    model, callback = compiled(mlp()), LayerStatsCallback(None)
    fit(model, [callback])
    model.add(layers.Dense(3, "softmax", name="new"))
    fit(compiled(model), [callback])
    assert [report.layers for report in callback.reports] == [["a", "z"], ["a", "z", "new"]]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras takes one step at a time there")
@pytest.mark.skipif(OLD, reason="a chunk of steps that is not whole fails in this Keras, without the callback too")
def test_a_partial_chunk_of_steps_counts_its_own_steps():
    model, callback = compiled(mlp(), steps_per_execution=2), LayerStatsCallback(None, 1)
    fit(model, [callback], epochs=2)
    assert steps(callback) == [1, 2, 4, 5]
    assert int(model.optimizer.iterations) == 6


def test_with_the_callbacks_of_keras(tmp_path):
    def callbacks(directory):
        several = [
            keras.callbacks.TensorBoard(directory, histogram_freq=1, profile_batch=0),
            keras.callbacks.ModelCheckpoint(directory / "last.keras", save_freq=2),
            keras.callbacks.BackupAndRestore(directory / "backup", save_freq=2),
            keras.callbacks.EarlyStopping("loss", patience=1),
            keras.callbacks.TerminateOnNaN(),
        ]
        return [*several, keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]

    states = []
    for name in ("with", "without"):
        keras.backend.clear_session()
        keras.utils.set_random_seed(3)
        model = compiled(mlp(layers.Dropout(0.2)), optimizer=keras.optimizers.Adam(use_ema=True))
        mine = [LayerStatsCallback(tmp_path / name, 2)] if name == "with" else []
        history = fit(model, [*mine, *callbacks(tmp_path / name)], epochs=3, validation_data=(X, Y)).history
        states.append(
            (history, [variable.numpy().tobytes() for variable in (*model.variables, *model.optimizer.variables)])
        )
    assert states[0] == states[1]
