"""Figures of the kinds about data, labels, heads and losses: healthy and broken, for diagnosis_pictures.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers
from picture_panel import Panel

RNG = np.random.default_rng(0)
X = RNG.standard_normal((512, 8)).astype("float32")
TWO = (X[:, :1] + X[:, 1:2] > 0).astype("float32")
CLASSES = (X[:, :4] + 0.5 * X[:, 4:]).argmax(-1)
RINGS = (np.square(X[:, :2]).sum(-1) > 1.4).astype("int64")
TARGET = 1.5 * X[:, :1]
SPARSE, BINARY = "sparse_categorical_crossentropy", "binary_crossentropy"
EPOCHS = 12


def network(units: int, head: str | None, hidden: str | None = "relu", between: tuple = ()) -> keras.Model:
    """One hidden layer and a head."""
    keras.utils.set_random_seed(0)
    first = layers.Dense(32, hidden, kernel_initializer="he_normal", name="hidden")
    return keras.Sequential([keras.Input((8,)), first, *between, layers.Dense(units, head, name="head")])


def trained(model: keras.Model, y: np.ndarray, loss: Any) -> keras.Model:
    """The model after some epochs, with its history."""
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=[] if loss == "mse" else ["accuracy"])
    model.fit(X, y, batch_size=64, epochs=EPOCHS, verbose=0)
    return model


def accuracies(model: keras.Model, y: np.ndarray, loss: str) -> list[float]:
    """Accuracy after each epoch."""
    return trained(model, y, loss).history.history["accuracy"]


def predictions(model: keras.Model, order: np.ndarray) -> np.ndarray:
    """Outputs for some examples."""
    return keras.ops.convert_to_numpy(model(X[order], training=False))[:, 0]


def batch_norm_lag(momentum: float) -> list[float]:
    """What inference divides by, relative to what training does, after each step."""
    norm = layers.BatchNormalization(momentum=momentum)
    model = network(1, None, between=(norm,))
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    found = []
    for step in range(60):
        model.train_on_batch(30 * X, TARGET)
        if step % 4 == 3:
            read = np.var(keras.ops.convert_to_numpy(model.get_layer("hidden")(30 * X)), axis=0)
            found.append(float(np.median(np.sqrt(keras.ops.convert_to_numpy(norm.moving_variance) / read))))
    return found


def panels() -> Iterator[Panel]:
    """Yields a panel for each kind."""
    pixels = RNG.integers(0, 255, (64, 12))
    spreads = ((pixels / 255).std(0), (pixels // 255).std(0))
    yield Panel("constant_input", "sd of a feature", *spreads, x_label="feature", bars=True)

    sigmoid, softmax = (trained(network(1, head), TWO, BINARY) for head in ("sigmoid", "softmax"))
    order = np.argsort(predictions(sigmoid, np.arange(512)))[::16]
    answers = (predictions(model, order) for model in (sigmoid, softmax))
    yield Panel("softmax_of_one", "prediction", *answers, x_label="example")

    runs = (accuracies(network(4, head), CLASSES, SPARSE) for head in ("softmax", "relu"))
    yield Panel("head_loss_mismatch", "accuracy", *runs, x_label="epoch")

    counts = (np.bincount(CLASSES + first, minlength=5) for first in (0, 1))
    yield Panel("label_mismatch", "examples", *counts, x_label="class (units: 0 to 3)", bars=True, across=3.5)

    linear, tanh = (trained(network(1, head), TARGET, "mse") for head in (None, "tanh"))
    order = np.argsort(TARGET[:, 0])[::16]
    answers = (predictions(model, order) for model in (linear, tanh))
    yield Panel("target_out_of_range", "prediction", *answers, x_label="target", x=TARGET[order, 0])

    read = keras.ops.convert_to_numpy(layers.Dense(1, kernel_initializer=keras.initializers.GlorotNormal(0))(X[:24]))
    norms = (layers.BatchNormalization()(read, training=True), layers.LayerNormalization()(read))
    outputs = (keras.ops.convert_to_numpy(each)[:, 0] for each in norms)
    yield Panel("normalization_of_one", "output of the\nnormalization", *outputs, x_label="example")

    runs = (accuracies(network(2, "softmax", hidden), RINGS, SPARSE) for hidden in ("relu", None))
    yield Panel("linear_stack", "accuracy", *runs, x_label="epoch")

    shares = []
    for labels in (CLASSES, np.sort(CLASSES)):
        shares.append([float(np.mean(batch == 0)) for batch in np.split(labels, 16)])
    yield Panel("unshuffled_labels", "share of class 0\nin the batch", *shares, x_label="step")

    lags = map(batch_norm_lag, (0.9, 0.99))
    steps = np.arange(4, 61, 4)
    yield Panel("batch_norm_lag", "inference divides by\n/ training does", *lags, 0.5, "step", steps)
