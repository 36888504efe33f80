"""What `fit` in a loop costs with one callback: the ratio to plain fits, by turns in one process.

    KERAS_BACKEND=torch OMP_NUM_THREADS=1 python benchmarks/fit_in_a_loop.py [--fits 50] [--steps 100]

Two models of the same weights are trained for one epoch at a time. The callback has its default arguments: it measures
one step of each fit, diagnoses it, and writes pictures now and then. `sum` counts all fits, the first one too, which
loads matplotlib and draws; `median` is that of the ratios of neighbours, where hardly any draws.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings

import keras
import numpy as np

from keras_initkit.callbacks import LayerStatsCallback


def mlp(width=256, depth=8):
    keras.utils.set_random_seed(0)
    inner = [keras.layers.Dense(width, "relu", kernel_initializer="he_normal") for _ in range(depth)]
    model = keras.Sequential([keras.Input((64,)), *inner, keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def seconds(model, x, y, *callbacks):
    began = time.perf_counter()
    model.fit(x, y, batch_size=32, verbose=0, callbacks=list(callbacks))
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=50)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # findings
    x = np.random.default_rng(0).standard_normal((32 * options.steps, 64)).astype("float32")
    y = np.arange(len(x)) % 10
    plain, watched = mlp(), mlp()
    seconds(plain, x, y), seconds(watched, x, y)
    with tempfile.TemporaryDirectory() as directory:
        stats = LayerStatsCallback(directory)
        pairs = [(seconds(plain, x, y), seconds(watched, x, y, stats)) for _ in range(options.fits)]
        files = len(os.listdir(os.path.join(directory, "train")))
        without, with_callback = map(sum, zip(*pairs, strict=True))
        result = {
            "plain fit, seconds": statistics.median(first for first, _ in pairs),
            "sum": with_callback / without,
            "median": statistics.median(second / first for first, second in pairs),
            "first": pairs[0][1] / pairs[0][0],
            "event files": files,
        }
        del stats, watched  # what waits to be drawn, while the directory is there
        print(json.dumps({name: round(value, 3) for name, value in result.items()}, indent=1))


if __name__ == "__main__":
    main()
