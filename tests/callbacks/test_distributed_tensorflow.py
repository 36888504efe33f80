"""Under `tf.distribute`, in processes of their own: their two devices are made before TensorFlow starts."""

import json
import textwrap

import keras
import pytest
from helpers import run_python

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strategies of TensorFlow")
# Up to then Keras sums the mean losses of replicas, and trains on twice the gradient. (3.3 and 3.15 were looked at.)
SUMMED = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 6)

PREPARED = """
    import json, warnings
    import keras, numpy as np, tensorflow as tf
    from keras import layers
    from keras_initkit.callbacks import LayerStatsCallback

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    warnings.simplefilter("ignore")

    def trained(strategy, callback, examples=32, steps_per_execution=1):
        keras.backend.clear_session()
        keras.utils.set_random_seed(1)
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((examples, 6, 6, 3)).astype("float32"), rng.integers(0, 3, examples)
        x[:, 0] *= np.linspace(0.1, 5, examples)[:, None, None]  # another signal in each replica
        with strategy.scope():
            model = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(8, 3, activation="tanh", name="conv")])
            model.add(layers.Flatten())
            model.add(layers.Dense(20, "relu", name="hidden"))
            model.add(layers.Dense(3, name="out"))
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("adam", loss, steps_per_execution=steps_per_execution)
        bias = np.zeros(20)
        bias[:5] = -1e6  # dead in all replicas
        model.get_layer("hidden").bias.assign(bias)
        callbacks = [] if callback is None else [callback]
        history = model.fit(x, y, batch_size=16, shuffle=False, verbose=0, epochs=2, callbacks=callbacks)
        values = [v.numpy().tobytes().hex() for v in (*model.variables, *model.optimizer.variables)]
        return values, history.history

    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    single = tf.distribute.get_strategy()
"""


def run(script):
    return json.loads(run_python("-c", textwrap.dedent(PREPARED) + textwrap.dedent(script)).stdout.splitlines()[-1])


def test_figures_are_those_of_the_global_batch_and_training_is_the_same():
    result = run("""
        callbacks = [LayerStatsCallback(None, "batch", sample_size=None, histogram_freq=1) for _ in range(2)]
        with_callback, history = trained(mirrored, callbacks[0])
        without, plain_history = trained(mirrored, None)
        trained(single, callbacks[1])
        reports = [[{**row.moments.to_dict(), "variance": row.moments.variance, "tap": [row.tap.kind, row.tap.layer],
                     "dead": row.dead_units, "saturated": row.saturated, "saturated_units": row.saturated_units,
                     "histogram": row.histogram} for row in callback.reports[0].rows] for callback in callbacks]
        uneven = LayerStatsCallback(None, "batch", sample_size=None)
        _ = trained(mirrored, uneven, examples=27)
        counts = [[row.moments.count for row in report.rows if row.tap.kind == "output"] for report in uneven.reports]
        print(json.dumps([with_callback == without and history == plain_history, len(callbacks[0].reports), reports,
                          counts]))
    """)
    same, steps, (mirrored, single), counts = result
    assert same, "training with the callback differs from training without"
    assert steps == 4
    assert [row["tap"] for row in mirrored] == [row["tap"] for row in single]
    for two, one in zip(mirrored, single, strict=True):
        # The sums of gradients are rounded in another order.
        rounded = two["tap"][0].endswith(("gradient", "update"))
        exact = ("count", "nonfinite") if rounded else ("count", "nonfinite", "zeros")
        assert [two[name] for name in exact] == [one[name] for name in exact], two["tap"]
        assert sum(two["histogram"][0]) == one["count"]
        factor = 4 if SUMMED and two["tap"][0].endswith("gradient") else 1
        if not (SUMMED and two["tap"][0] == "weight_update"):  # no factor holds through Adam
            assert two["variance"] == pytest.approx(factor * one["variance"], rel=1e-5), two["tap"]
        for name in ("dead", "saturated", "saturated_units"):
            expected = one[name] if one[name] is None else pytest.approx(one[name], rel=1e-5)
            assert two[name] == expected, (two["tap"], name)
    hidden = next(row for row in mirrored if row["tap"] == ["output", "hidden"])
    assert hidden["dead"] == pytest.approx(5 / 20, abs=1e-7)
    # 27 examples: batches of 16 and of 11, of which one replica has 6 and the other 5.
    assert counts == 2 * [[16 * 128, 16 * 20, 16 * 3], [11 * 128, 11 * 20, 11 * 3]]


def test_several_workers_are_refused_before_the_first_step():
    error = run("""
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        try:
            trained(strategy, LayerStatsCallback(None))
        except ValueError as error:
            print(json.dumps(str(error)))
    """)
    assert "MultiWorkerMirroredStrategy, expected tf.distribute.MirroredStrategy or one replica" in error
    assert "keras issue 20585" in error
