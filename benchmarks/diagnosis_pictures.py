"""Draws the pictures of docs/diagnosis.md: what each kind looks like in a small network, beside a sound one.

python benchmarks/diagnosis_pictures.py docs/images
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure

from keras_initkit import diagnose, initialize, probe
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.theory import _thresholds as thresholds

X = np.random.default_rng(0).standard_normal((256, 64)).astype("float32")
Y = np.argmax(X[:, :10], axis=1)
DEPTH = 8
LINEAR = ("dead_units", "saturated_units", "symmetric_units", "constant_output", "frozen_weights", "nonfinite")
OVER_STEPS = ("update_too_small", "update_too_large", "constant_output")


def network(activation: str = "relu", broken: dict[int, dict[str, Any]] | None = None, **options: Any) -> keras.Model:
    """Eight hidden layers; `broken` are the options of some of them."""
    keras.utils.set_random_seed(0)
    options = {"kernel_initializer": "he_normal" if activation == "relu" else "glorot_normal", **options}
    hidden = [
        layers.Dense(64, activation, name=f"hidden_{i}", **{**options, **(broken or {}).get(i, {})})
        for i in range(DEPTH)
    ]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10, name="head")])
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def by_layer(model: keras.Model, kind: str, figure: Callable, x: np.ndarray = X) -> list[float]:
    """A figure of each hidden layer's tensor of a kind."""
    rows = probe(model, x, Y).rows
    return [figure(row) for row in rows if row.tap.kind == kind and row.tap.layer.startswith("hidden")]


def updates(rate: float) -> list[float]:
    """Update to weight of the third layer over the first steps."""
    model = network()
    model.optimizer.learning_rate = rate
    watch = LayerStatsCallback(None, update_freq="batch", on_finding="ignore")
    model.fit(X, Y, batch_size=32, epochs=2, callbacks=[watch], verbose=0)
    found = []
    for report in watch.reports:
        sd = {row.tap.kind: row.moments.stddev for row in report.rows if row.tap.layer == "hidden_2"}
        found.append(sd["weight_update"] / sd["weight"])
    return found


def outputs_over_training(activation: str) -> list[float]:
    """Standard deviation of a classifier's answers over the first steps."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(1, activation, name="head")])
    model.compile(keras.optimizers.SGD(0.05), "binary_crossentropy")
    watch = LayerStatsCallback(None, update_freq="batch", on_finding="ignore")
    model.fit(X, (Y > 4)[:, None], batch_size=32, epochs=2, callbacks=[watch], verbose=0)
    return [report.statistic("activation_variance")["head"] ** 0.5 for report in watch.reports]


def depthwise_scales(by_layer_fans: bool) -> list[float]:
    """Weight variance times what each weight's unit really reads, of depthwise convolutions drawn by he_normal."""
    keras.utils.set_random_seed(0)
    convolutions = [
        layers.DepthwiseConv2D(3, padding="same", activation="relu", depthwise_initializer="he_normal")
        for _ in range(DEPTH)
    ]
    model = keras.Sequential([keras.Input((8, 8, 64)), *convolutions])
    if by_layer_fans:
        initialize(model, "he_normal", seed=0)
    return [float(np.var(np.asarray(layer.kernel)) * 9) for layer in model.layers]


def gradients(cut_after: int | None) -> list[float]:
    """Of each hidden layer's weights, where nothing comes back through one of them."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((64,))
    for i in range(DEPTH):
        x = layers.Dense(64, "relu", kernel_initializer="he_normal", name=f"hidden_{i}")(x)
        x = keras.ops.stop_gradient(x) if i == cut_after else x
    model = keras.Model(inputs, layers.Dense(10)(x))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    watch = LayerStatsCallback(None, on_finding="ignore")
    model.fit(X, Y, batch_size=256, callbacks=[watch], verbose=0)
    found = watch.reports[0].statistic("weight_gradient_variance")
    return [found.get(f"hidden_{i}", 0.0) ** 0.5 for i in range(DEPTH)]


def variance(row: Any) -> float:
    return row.moments.variance


def deviation(row: Any) -> float:
    return row.moments.stddev


def panels() -> list[tuple[str, str, list[float], list[float], float | None]]:
    """Kind, what is drawn, sound and broken figures, and the threshold, for each panel."""
    far, flat = keras.initializers.Constant(-30.0), keras.initializers.Constant(0.1)
    normal = keras.initializers.RandomNormal
    sound, tanh = network(), network("tanh")
    rank_one = network("tanh")
    rank_one.get_layer("hidden_3").kernel.assign(np.outer(X[0], X[1]) / 8)
    variances = by_layer(sound, "output", variance)
    ranks = by_layer(tanh, "output", lambda row: row.effective_rank)
    weights = by_layer(sound, "weight", lambda row: row.moments.variance * 64 if len(row.shape) > 1 else np.nan)
    weights = [value for value in weights if np.isfinite(value)]
    off = network(broken={3: {"kernel_initializer": normal(stddev=0.01)}})
    off_weights = by_layer(off, "weight", lambda row: row.moments.variance * 64 if len(row.shape) > 1 else np.nan)
    shrinking = network(kernel_initializer=normal(stddev=0.04))
    growing = network(kernel_initializer=normal(stddev=0.6))
    squashed = network("sigmoid")
    dead, saturated = network(broken={3: {"bias_initializer": far}}), network("tanh", {3: {"bias_initializer": far}})

    spoiled = network()
    spoiled.get_layer("hidden_3").kernel.assign(np.where(np.eye(64) == 1, np.nan, sound.get_layer("hidden_3").kernel))

    def no_number(row: Any) -> float:
        return row.moments.nonfinite

    def relative(model: keras.Model) -> list[float]:
        weight = [row.moments.stddev for row in probe(model, X, Y).rows if row.tap.kind == "weight" and row.shape[1:]]
        gradient = by_layer(model, "weight_gradient", lambda row: row.moments.stddev if row.shape[1:] else np.nan)
        return [g / w for g, w in zip([g for g in gradient if np.isfinite(g)], weight, strict=False)]

    def outputs(model: keras.Model, x: np.ndarray = X) -> list[float]:
        return by_layer(model, "output", variance, x)

    same = network(broken={3: {"kernel_initializer": flat}})
    distinct = [float(len(np.unique(np.asarray(layer.kernel).round(6), axis=1).T)) for layer in same.layers[:-1]]
    return [
        ("unscaled_input", "variance of outputs", variances, outputs(sound, 127.5 + 74 * X), None),
        (
            "initializer_mismatch",
            "weight variance x fan-in",
            weights,
            [v for v in off_weights if np.isfinite(v)],
            2 / thresholds.MISMATCH,
        ),
        ("vanishing_activation", "variance of outputs", variances, outputs(shrinking), 1 / thresholds.SIGNAL_FACTOR),
        ("exploding_activation", "variance of outputs", variances, outputs(growing), thresholds.SIGNAL_FACTOR),
        ("vanishing_gradient", "gradient to weight", relative(sound), relative(squashed), None),
        (
            "exploding_gradient",
            "sd of gradients",
            by_layer(sound, "output_gradient", deviation),
            by_layer(growing, "output_gradient", deviation),
            None,
        ),
        (
            "dead_units",
            "dead units",
            *(by_layer(m, "output", lambda r: r.dead_units) for m in (sound, dead)),
            thresholds.DEAD_UNITS,
        ),
        (
            "saturated_units",
            "saturated units",
            *(by_layer(m, "output", lambda r: r.saturated_units) for m in (tanh, saturated)),
            thresholds.SATURATED_UNITS,
        ),
        ("symmetric_units", "different columns", [64.0] * DEPTH, distinct, None),
        (
            "rank_collapse",
            "effective rank",
            ranks,
            by_layer(rank_one, "output", lambda r: r.effective_rank),
            thresholds.COLLAPSED_RANK,
        ),
        ("wrong_fans", "weight variance x inputs of a unit", depthwise_scales(True), depthwise_scales(False), 1.0),
        ("constant_output", "sd of the output", *map(outputs_over_training, ("sigmoid", "softmax")), None),
        ("frozen_weights", "sd of weight gradients", gradients(None), gradients(3), None),
        (
            "nonfinite",
            "outputs that are no number",
            *(by_layer(m, "output", no_number) for m in (sound, spoiled)),
            None,
        ),
        ("update_too_small", "update to weight", updates(0.05), updates(5e-6), thresholds.UPDATE_TOO_SMALL),
        ("update_too_large", "update to weight", updates(0.05), updates(50.0), thresholds.UPDATE_TOO_LARGE),
    ]


def main() -> None:
    found = panels()
    figure = Figure(figsize=(12, 12), layout="constrained")
    axes = figure.subplots(4, 4).ravel()
    for ax, (kind, label, sound, broken, threshold) in zip(axes, found, strict=True):
        ax.plot(sound, "o-", color="#0072B2", markersize=4, label="sound")
        ax.plot(broken, "s--", color="#D55E00", markersize=4, label=kind)
        if threshold is not None:
            ax.axhline(threshold, color="black", linewidth=0.8, linestyle=":", label="threshold")
        if kind not in LINEAR:
            ax.set_yscale("log")
        ax.set_title(kind, fontsize=10)
        ax.set_ylabel(label, fontsize=8)
        ax.set_xlabel("step" if kind in OVER_STEPS else "layer", fontsize=8)
        ax.tick_params(labelsize=7)
    axes[0].legend(["sound", "broken"], fontsize=7)
    figure.savefig(Path(sys.argv[1]) / "diagnosis_kinds.png", dpi=80)
    print([finding.kind for finding in diagnose(network(), X, Y)])


if __name__ == "__main__":
    main()
