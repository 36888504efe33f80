"""A post-norm transformer of 48 blocks, from Keras' own initializers and from "deepnorm".

    KERAS_BACKEND=torch python benchmarks/deepnorm_training.py --out deepnorm.json
    KERAS_BACKEND=torch python benchmarks/deepnorm_training.py --starts deepnorm,slow_writers --rates 1e-3

scikit-learn's digits, the eight rows of each as a sequence: attention of 4 heads and an MLP of relu in each block,
width 32, Adam from its first step on, no warm-up. `slow_writers` is "deepnorm" with 1/alpha of the rate for the kernels
that write into the stream, which are the paper's steps.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_initkit as ik

STARTS = ("default", "gpt2", "deepnorm")


def transformer(blocks: int, width: int = 32, heads: int = 4) -> keras.Model:
    """Returns an encoder of post-norm blocks over the rows of an image, with a classifier on their mean."""
    layers = keras.layers
    inputs = keras.Input((8, 8))
    x = layers.Dense(width, name="rows")(inputs)
    x = _Positions(name="positions")(x)
    for block in range(blocks):
        y = layers.MultiHeadAttention(heads, width // heads, name=f"attention_{block}")(x, x)
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add(name=f"sum_{block}")([x, y]))
        y = layers.Dense(width, name=f"out_{block}")(layers.Dense(4 * width, "relu", name=f"in_{block}")(x))
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add(name=f"mlp_sum_{block}")([x, y]))
    return keras.Model(inputs, layers.Dense(10, name="head")(layers.GlobalAveragePooling1D()(x)))


class _Positions(keras.layers.Layer):
    """Adds a table of positions."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02))

    def call(self, x: Any) -> Any:
        return x + self.table


def train(start: str, blocks: int, rate: float, epochs: int, seed: int) -> dict[str, Any]:
    """Returns the losses of the epochs, and the accuracy on 360 held-out digits after the last."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))
    x, y = (digits.images[order] / 8 - 1).astype("float32"), digits.target[order]
    keras.utils.set_random_seed(seed)
    model = transformer(blocks)
    scheme = "deepnorm" if start == "slow_writers" else start
    if scheme != "default":
        ik.initialize(model, scheme, seed=seed)
    if start == "slow_writers":
        optimizer: Any = _slow_writers(rate, alpha=(2 * blocks) ** 0.25)
    else:
        optimizer = keras.optimizers.Adam(rate)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    started = time.perf_counter()
    history = model.fit(x[360:], y[360:], batch_size=64, epochs=epochs, verbose=0).history
    tested = model.evaluate(x[:360], y[:360], verbose=0, batch_size=360)
    return {"loss": history["loss"], "test": tested[1], "seconds": time.perf_counter() - started}


def _slow_writers(rate: float, alpha: float) -> keras.optimizers.Optimizer:
    """Returns Adam with 1/alpha of the rate for the kernels that write into the stream."""
    others = keras.optimizers.OptimizerMap(keras.optimizers.Adam(rate))
    others[r"(.*/)?(attention_output|out_\d+)/kernel"] = keras.optimizers.Adam(rate / alpha)
    return keras.optimizers.MultiOptimizer(others)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", default="1e-3")
    parser.add_argument("--starts", default=",".join(STARTS))
    parser.add_argument("--out", help="JSON file for the numbers")
    options = parser.parse_args()
    print(f"{options.blocks} post-norm blocks, {options.epochs} epochs of 23 steps; a guess loses {math.log(10):.3f}\n")
    print("| start | rate | seed | first epoch | last epoch | held out | seconds |\n|---|---|---|---|---|---|---|")
    results = []
    for rate in map(float, options.rates.split(",")):
        for start in options.starts.split(","):
            for seed in range(options.seeds):
                run = train(start, options.blocks, rate, options.epochs, seed)
                print(
                    f"| {start} | {rate:g} | {seed} | {run['loss'][0]:.3f} | {run['loss'][-1]:.3f} | {run['test']:.3f} "
                    f"| {run['seconds']:.0f} |",
                    flush=True,
                )
                results.append({"start": start, "rate": rate, "seed": seed, **run})
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
