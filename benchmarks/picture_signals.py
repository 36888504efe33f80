"""Figures of the kinds about signals, gradients, weights and steps: healthy and broken, for diagnosis_pictures.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers
from picture_panel import Panel

from keras_initkit import initialize, probe
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.theory import _thresholds as thresholds

X = np.random.default_rng(0).standard_normal((256, 64)).astype("float32")
Y = np.argmax(X[:, :10], axis=1)
DEPTH = 8


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


def outputs_over_training(bias: float) -> list[float]:
    """Standard deviation of a regression's relu output over the first steps."""
    keras.utils.set_random_seed(0)
    last = layers.Dense(1, "relu", bias_initializer=keras.initializers.Constant(bias), name="head")
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), last])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    watch = LayerStatsCallback(None, update_freq="batch", on_finding="ignore")
    model.fit(X, np.abs(X[:, :1]), batch_size=32, epochs=2, callbacks=[watch], verbose=0)
    return [report.statistic("activation_variance")["head"] ** 0.5 for report in watch.reports]


def losses_along_the_step(rate: float) -> list[float]:
    """The loss on the way of the first step, from its start to its end."""
    model = network()
    y = keras.ops.one_hot(Y, 10)
    model.compile(keras.optimizers.SGD(rate), keras.losses.CategoricalCrossentropy(from_logits=True))
    start = model.get_weights()
    model.train_on_batch(X, y)
    end = model.get_weights()
    found = []
    for part in np.linspace(0, 1, 11):
        model.set_weights([one + part * (other - one) for one, other in zip(start, end, strict=True)])
        found.append(float(model.test_on_batch(X, y)))
    return found


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
    return [float(np.var(keras.ops.convert_to_numpy(layer.kernel)) * 9) for layer in model.layers]


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


def panels() -> Iterator[Panel]:
    """Yields a panel for each kind."""
    far, flat = keras.initializers.Constant(-30.0), keras.initializers.Constant(0.1)
    normal = keras.initializers.RandomNormal
    sound, tanh = network(), network("tanh")
    rank_one = network("tanh")
    rank_one.get_layer("hidden_3").kernel.assign(np.outer(X[0], X[1]) / 32)
    off = network(broken={3: {"kernel_initializer": normal(stddev=0.01)}})
    shrinking = network(kernel_initializer=normal(stddev=0.04))
    growing = network(kernel_initializer=normal(stddev=0.6))
    dead, saturated = network(broken={3: {"bias_initializer": far}}), network("tanh", {3: {"bias_initializer": far}})
    same = network(broken={3: {"kernel_initializer": flat}})
    spoiled = network()
    spoiled.get_layer("hidden_3").kernel.assign(
        np.where(np.eye(64) == 1, np.nan, keras.ops.convert_to_numpy(sound.get_layer("hidden_3").kernel))
    )

    def weights(model: keras.Model) -> list[float]:
        return [float(np.var(keras.ops.convert_to_numpy(layer.kernel)) * 64) for layer in model.layers[:-1]]

    def distinct(model: keras.Model) -> list[float]:
        return [
            float(len(np.unique(keras.ops.convert_to_numpy(layer.kernel), axis=1).T)) for layer in model.layers[:-1]
        ]

    def outputs(model: keras.Model, x: np.ndarray = X) -> list[float]:
        return by_layer(model, "output", variance, x)

    def ranks(model: keras.Model) -> list[float]:
        return by_layer(model, "output", lambda row: row.effective_rank)

    variances = outputs(sound)
    yield Panel("unscaled_input", "variance of outputs", variances, outputs(sound, 127.5 + 74 * X), log=True)
    level = 2 / thresholds.MISMATCH
    yield Panel("initializer_mismatch", "weight variance\nx fan-in", weights(sound), weights(off), level, log=True)
    level = 1 / thresholds.HEALTHY_FACTOR
    yield Panel("vanishing_activation", "variance of outputs", variances, outputs(shrinking), level, log=True)
    level = thresholds.HEALTHY_FACTOR
    yield Panel("exploding_activation", "variance of outputs", variances, outputs(growing), level, log=True)
    gradients_of = (by_layer(model, "output_gradient", deviation) for model in (sound, network("sigmoid")))
    yield Panel("vanishing_gradient", "sd of gradients", *gradients_of, log=True)
    gradients_of = (by_layer(model, "output_gradient", deviation) for model in (sound, growing))
    yield Panel("exploding_gradient", "sd of gradients", *gradients_of, log=True)
    counts = (by_layer(model, "output", lambda row: row.dead_units) for model in (sound, dead))
    yield Panel("dead_units", "fraction of\ndead units", *counts, thresholds.DEAD_UNITS)
    counts = (by_layer(model, "output", lambda row: row.saturated_units) for model in (tanh, saturated))
    yield Panel("saturated_units", "fraction of\nsaturated units", *counts, thresholds.SATURATED_UNITS)
    yield Panel("symmetric_units", "different units", distinct(sound), distinct(same))
    yield Panel("rank_collapse", "effective rank", ranks(tanh), ranks(rank_one), thresholds.COLLAPSED_RANK, log=True)
    scales = map(depthwise_scales, (True, False))
    yield Panel("wrong_fans", "weight variance x\ninputs of a unit", *scales, log=True)
    yield Panel("constant_output", "sd of the output", *map(outputs_over_training, (0.0, -30.0)), x_label="step")
    yield Panel("frozen_weights", "sd of gradients", *map(gradients, (None, 3)))
    numbers = (by_layer(model, "output", lambda row: row.moments.nonfinite) for model in (sound, spoiled))
    yield Panel("nonfinite", "outputs that are\nnot finite", *numbers)
    healthy = updates(0.05)
    small, large = updates(5e-6), updates(50.0)
    level = thresholds.UPDATE_TOO_SMALL
    yield Panel("update_too_small", "update to weight", healthy, small, level, "step", log=True)
    level = thresholds.UPDATE_TOO_LARGE
    yield Panel("update_too_large", "update to weight", healthy, large, level, "step", log=True)
    steps = map(losses_along_the_step, (0.05, 4.0))
    yield Panel("overshooting_step", "loss", *steps, x_label="part of the first step", x=np.linspace(0, 1, 11))
