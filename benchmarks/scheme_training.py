"""Training from each scheme, without normalisation in the network."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
from scheme_models import mlp, residual_mlp

from keras_initkit.comparison._datasets import load
from keras_initkit.schemes import initialize

EXAMPLES = 256  # for schemes that read data and do not train on them


class Start(NamedTuple):
    """A scheme, what it reads ("x", "batch" of x, "xy" or nothing) and its options."""

    scheme: str
    reads: str = ""
    options: Mapping[str, Any] = MappingProxyType({})


DRAWN = [Start("glorot_uniform"), Start("he_normal"), Start("auto"), Start("lsuv", "batch")]
# MetaInit's epsilon: see its docstring for networks of this width.
LEARNED = [Start("metainit", "", {"steps": 200, "epsilon": 1e-3})]


class Network(NamedTuple):
    """A model, Adam's learning rate, the schemes that are for it, and whether its inputs are scaled into [0, 1]."""

    model: keras.Model
    rate: float
    starts: list[Start]
    unit_range: bool = False


def networks(inputs: int, classes: int) -> dict[str, Network]:
    """The networks by name. Auto-encoders of sigmoid layers want inputs in [0, 1]."""
    deep = [*DRAWN, Start("data_dependent", "batch")]
    gradinit = Start("gradinit", "xy", {"steps": 100, "optimizer": "adam"})
    pretraining = [Start("pretraining", "x", {"verbose": 0}), Start("pretraining", "x", {"verbose": 0, "noise": 0.25})]
    return {
        "relu MLP, 50 layers": Network(mlp(50, 128, "relu", inputs, classes), 1e-4, deep),
        "tanh MLP, 10 layers": Network(mlp(10, 128, "tanh", inputs, classes), 1e-4, [*deep, gradinit, *LEARNED]),
        "sigmoid MLP, 6 layers, inputs in [0, 1]": Network(
            mlp(6, 64, "sigmoid", inputs, classes), 1e-3, [*DRAWN, *pretraining], unit_range=True
        ),
        "residual relu MLP, 20 branches": Network(residual_mlp(inputs, classes), 1e-4, [*DRAWN, Start("fixup")]),
    }


def training(data: str, epochs: int, seeds: int) -> dict[str, Any]:
    """Prints first-epoch and final training loss; returns them."""
    dataset = load(data)
    standardized = dataset.x_train.reshape(len(dataset.x_train), -1)[:4096]
    y = dataset.y_train[: len(standardized)]
    print(f"{dataset.name}: {len(y)} examples, {epochs} epochs, {seeds} seeds; a constant guess has a loss of "
          f"{np.log(dataset.classes):.3f}\n")  # fmt: skip
    print("| network | scheme | first epoch | final | accuracy |")
    print("|---|---|---|---|---|")
    results: dict[str, Any] = {}
    for name, (model, rate, starts, unit_range) in networks(standardized.shape[1], dataset.classes).items():
        low, span = (standardized.min(), np.ptp(standardized)) if unit_range else (0.0, 1.0)
        x = (standardized - low) / span
        given = {"": (), "x": (x,), "batch": (x[:EXAMPLES],), "xy": (x, y)}
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        model.optimizer.build(model.trainable_variables)
        for start in starts:
            shown = ", ".join([start.scheme, *(f"{k}={v}" for k, v in start.options.items() if k != "verbose")])
            runs = []
            for seed in range(seeds):
                keras.utils.set_random_seed(seed)
                initialize(model, "reset", seed=seed)  # what some schemes start from
                initialize(model, start.scheme, *given[start.reads], seed=seed, **start.options)
                for variable in model.optimizer.variables:
                    if "learning_rate" not in variable.path:
                        variable.assign(keras.ops.zeros_like(variable.value))
                history = model.fit(x, y, batch_size=64, epochs=epochs, verbose=0).history
                runs.append((history["loss"][0], history["loss"][-1], history["accuracy"][-1]))
            results.setdefault(name, {})[shown] = runs
            cells = [f"{statistics.mean(column):.3f} ± {np.std(column):.3f}" for column in zip(*runs, strict=True)]
            print(f"| {name} | {shown} | " + " | ".join(cells) + " |", flush=True)
    return results
