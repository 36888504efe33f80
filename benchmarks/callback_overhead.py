"""What measuring a training step costs: ratios to the plain step, as JSON, all contestants by turns in one process.

    KERAS_BACKEND=tensorflow python benchmarks/callback_overhead.py [--repeats 60] [--only mlp cnn transformer]
        [--depths 10 100 1000] [--skip fit memory depths writing]

Every contestant is a model of its own with the same weights, trained by `train_on_batch` on the same batch, with the
callback's hooks called around it as `fit` calls them. Each ratio is the median of the ratios of neighbouring steps.
Wall time and processor time (of all threads, which a busy machine disturbs less) stand side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import keras
import numpy as np
from keras import layers

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.report._scalars import DEFAULT_STATISTICS

CLASSES = 10
FINITE = [name for name in DEFAULT_STATISTICS if name != "nonfinite"]


def mlp(depth=8, width=512, batch=128):
    inner = [layers.Dense(width, "relu") for _ in range(depth)]
    model = keras.Sequential([keras.Input((width,)), *inner, layers.Dense(CLASSES)])
    return model, np.random.default_rng(0).standard_normal((batch, width)).astype("float32")


def cnn(batch=64):
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(32, 3, padding="same", use_bias=False)(inputs)
    for width in (32, 32, 64, 64):
        strides = 1 if x.shape[-1] == width else 2
        shortcut = x if strides == 1 else layers.Conv2D(width, 1, strides=2, use_bias=False)(x)
        y = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same", use_bias=False)(y))
        x = layers.ReLU()(layers.Add()([y, shortcut]))
    outputs = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs), np.random.default_rng(0).standard_normal((batch, 32, 32, 3)).astype("float32")


def transformer(batch=16, length=64, width=256):
    tokens = keras.Input((length,), dtype="int32")
    x = layers.Embedding(1000, width)(tokens)
    for _ in range(4):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, width // 4)(y, y)])
        y = layers.Dense(4 * width, "gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(width)(y)])
    outputs = layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(tokens, outputs), np.random.default_rng(0).integers(0, 1000, (batch, length))


MODELS = {"mlp": mlp, "cnn": cnn, "transformer": transformer}


class Contestant:
    """One model, stepped with or without a callback around it."""

    def __init__(self, build, callback=None, **options):
        keras.utils.set_random_seed(0)
        self.model, self.x = build(**options)
        self.y = np.random.default_rng(1).integers(0, CLASSES, len(self.x))
        self.model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        self.callback, self.steps = callback, 0
        if callback is not None:
            callback.set_model(self.model)
            callback.set_params({"steps": 10**9, "epochs": 1})
            callback.on_train_begin()
            callback.on_epoch_begin(0)

    def step(self):
        """One training step, as `fit` takes it."""
        if self.callback is None:
            return float(self.model.train_on_batch(self.x, self.y))
        self.callback.on_train_batch_begin(self.steps)
        result = float(self.model.train_on_batch(self.x, self.y))
        self.callback.on_train_batch_end(self.steps)
        self.steps += 1
        return result


class Workaround(Contestant):
    """What people do on TensorFlow: a second forward and backward pass over the same batch under a tape."""

    def __init__(self, build):
        import tensorflow as tf

        super().__init__(build)
        read = [layer.output for layer in self.model.layers if layer.weights]
        inspected = keras.Model(self.model.inputs, [*read, *self.model.outputs])
        weights = self.model.trainable_variables

        @tf.function
        def look(x, y):
            with tf.GradientTape() as tape:
                *outputs, logits = inspected(x, training=True)
                loss = self.model.loss(y, logits)
            gradients = tape.gradient(loss, [*outputs, *[weight.value for weight in weights]])
            tensors = [x for x in [*outputs, *gradients, *[weight.value for weight in weights]] if x is not None]
            return [tf.stack(tf.nn.moments(tf.reshape(x, (-1,)), 0)) for x in tensors]

        self.look, self.x_tensor, self.y_tensor = look, tf.constant(self.x), tf.constant(self.y)

    def step(self):
        """The tape first, then the step."""
        for moments in self.look(self.x_tensor, self.y_tensor):
            moments.numpy()
        return super().step()


def never(step):
    return False


def timed(function):
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def ratios(times, base):
    """Medians of the ratios of neighbours, wall and processor time."""
    return {
        "wall": statistics.median(a[0] / b[0] for a, b in zip(times, base, strict=True)),
        "processor": statistics.median(a[1] / b[1] for a, b in zip(times, base, strict=True)),
    }


def steps(build, repeats, directory):
    """Ratios of a step and of the first one."""
    contestants = {
        "plain": Contestant(build),
        "measured": Contestant(build, LayerStatsCallback(os.path.join(directory, "measured"), "batch")),
        "every element": Contestant(build, LayerStatsCallback(None, "batch", sample_size=None)),
        "nonfinite off": Contestant(build, LayerStatsCallback(None, "batch", statistics=FINITE)),
        "unmeasured": Contestant(build, LayerStatsCallback(None, never)),
    }
    if keras.backend.backend() == "jax":
        contestants["exact=False"] = Contestant(build, LayerStatsCallback(None, "batch", exact=False))
    if keras.backend.backend() == "tensorflow":
        contestants["workaround"] = Workaround(build)
    unmeasured = contestants["unmeasured"].model
    times = {name: [timed(each.step)] for name, each in contestants.items()}
    function = unmeasured.train_function
    for _ in range(repeats):
        for name, each in contestants.items():
            times[name].append(timed(each.step))
    assert unmeasured.train_function is function, "an unmeasured step runs the function that Keras compiled"
    plain = times["plain"]
    found = {name: ratios(several[3:], plain[3:]) for name, several in times.items() if name != "plain"}
    found["plain, ms"] = 1e3 * statistics.median(wall for wall, _ in plain[3:])
    # The measured function is traced beside the plain one, which that step needs as well.
    found["start-up"] = (times["measured"][0][0] - times["unmeasured"][0][0]) / times["unmeasured"][0][0]
    found["rows"] = len(contestants["measured"].callback.reports[0].rows)
    return found


def whole_fit(build, directory, epochs=6, batches=50):
    """`fit` with default arguments over `fit` without; the first epoch, which traces, apart."""

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.start = time.perf_counter()

    pairs = []
    for attempt in range(3):
        pair = []
        for with_callback in (False, True):
            one, clock = Contestant(build), Clock()
            x, y = np.concatenate([one.x] * batches), np.concatenate([one.y] * batches)
            mine = [LayerStatsCallback(os.path.join(directory, f"fit{attempt}"))] if with_callback else []
            one.model.fit(x, y, batch_size=len(one.x), epochs=epochs, verbose=0, callbacks=[clock, *mine])
            pair.append(time.perf_counter() - clock.start)
        pairs.append(pair[1] / pair[0])
    return statistics.median(pairs)


def memory(name):
    """Peak resident memory of a process that measures, over that of one that does not."""
    peaks = [
        int(subprocess.run([sys.executable, __file__, "--child", name, way], capture_output=True, check=True).stdout)
        for way in ("plain", "measured")
    ]
    return peaks[1] / peaks[0]


def child(name, way):
    one = Contestant(MODELS[name], LayerStatsCallback(None, "batch") if way == "measured" else None)
    for _ in range(10):
        one.step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def per_layer(depths, repeats):
    """Milliseconds that a measured step adds for each layer, and the ratio of the first steps' difference."""
    sys.setrecursionlimit(100_000)  # Keras walks a model's graph by recursion
    found = {}
    for depth in depths:
        options = {"depth": depth, "width": 64, "batch": 128}
        pair = Contestant(mlp, **options), Contestant(mlp, LayerStatsCallback(None, "batch"), **options)
        times = [[timed(each.step) for each in pair] for _ in range(repeats + 3)]
        found[depth] = {
            unit: 1e3 * statistics.median(measured[i] - plain[i] for plain, measured in times[3:]) / depth
            for i, unit in enumerate(("wall", "processor"))
        }
        (plain, _), (measured, _) = times[0]
        found[depth]["start-up"] = (measured - plain) / plain
    return found


def writing(directory, number=1000):
    """Microseconds for one scalar."""
    log, values = EventLog(os.path.join(directory, "scalars")), {f"statistic/layer_{i}": 1.0 for i in range(number)}
    found = {
        "event log": 1e6 * min(timed(lambda step=step: log.scalars(step, values))[0] for step in range(20)) / number
    }
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def summaries():
            with tf.summary.create_file_writer(os.path.join(directory, "tf")).as_default():
                for name, value in values.items():
                    tf.summary.scalar(name, value, step=0)

        found["tf.summary.scalar"] = 1e6 * min(timed(summaries)[0] for _ in range(3)) / number
    return found


def machine():
    """What the figures depend on."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
        return {"processors": os.cpu_count(), "processor": model, "oneDNN": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "")}
    return {"processors": os.cpu_count()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--only", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--depths", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--skip", nargs="*", default=[], choices=["fit", "memory", "depths", "writing"])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # what the callback finds in models of random data
    if arguments.child:
        child(*arguments.child)
        return
    result = {"backend": keras.backend.backend(), "keras": keras.__version__, **machine()}
    # First: a process inherits the peak of the one that starts it.
    peaks = {} if "memory" in arguments.skip else {name: memory(name) for name in arguments.only}
    with tempfile.TemporaryDirectory() as directory:
        for name in arguments.only:
            place = os.path.join(directory, name)
            result[name] = steps(MODELS[name], arguments.repeats, place)
            if "fit" not in arguments.skip:
                result[name]["whole fit"] = whole_fit(MODELS[name], place)
            if name in peaks:
                result[name]["peak memory"] = peaks[name]
        if "depths" not in arguments.skip:
            result["ms per layer"] = per_layer(arguments.depths, max(5, arguments.repeats // 4))
        if "writing" not in arguments.skip:
            result["us per scalar"] = writing(directory)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
