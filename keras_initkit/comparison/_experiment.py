"""One model, trained from many initializations, with its signal measured before the first update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.callbacks._layer_stats import LayerStatsCallback
from keras_initkit.capture._random_state import python_random
from keras_initkit.comparison._contestants import scheme
from keras_initkit.comparison._data import Dataset, ShuffledBatches
from keras_initkit.comparison._hparams import session
from keras_initkit.comparison._result import Run
from keras_initkit.statistics._unit_activity import dead_units, saturated_units
from keras_initkit.theory import activation_range

BINS = 41
PROBED = 512  # examples whose activations are drawn as histograms


def build(shape: Sequence[int], classes: int, depth: int, units: int, activation: str, name: str) -> keras.Model:
    """The sources' model: Flatten, `depth` Dense layers under the initializer of that name, a classifier.

    Every layer has an initializer of its own, so that no two draw from one stream.
    """
    hidden = [
        keras.layers.Dense(
            units,
            activation,
            kernel_initializer=scheme(name, activation),
            bias_initializer="zeros",
            name=f"hidden_{index:02d}",
        )
        for index in range(1, depth + 1)
    ]
    output = keras.layers.Dense(classes, "softmax", kernel_initializer=scheme(name, "linear"), name="classifier")
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), *hidden, output])


def histogram(values: np.ndarray) -> tuple[list[int], list[float]]:
    """Counts and bin edges of the finite values."""
    # In float64: bins between values near overflow, near underflow or near each other have no edges in float32.
    finite = values[np.isfinite(values)].astype("float64")
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if low == high:
        margin = max(0.5, abs(low) / 2)
        low, high = low - margin, high + margin
    counts, edges = np.histogram(finite, BINS, (low, high))
    return counts.tolist(), edges.tolist()


class Experiment:
    """Trains one compiled model again and again from fresh weights: traced once, whatever the number of runs."""

    def __init__(self, data: Dataset, settings: dict[str, Any]):
        self.data, self.settings = data, settings
        self._shape = data.x_train.shape[1:]
        self.model = self._fresh("zeros")
        optimizer = keras.optimizers.SGD(settings["learning_rate"], momentum=0.9)
        self.model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        optimizer.build(self.model.trainable_variables)
        self._unused_optimizer = [variable.numpy() for variable in optimizer.variables]
        self.hidden = [layer for layer in self.model.layers if layer.name.startswith("hidden_")]
        self._activations = keras.Model(self.model.inputs, [layer.output for layer in self.hidden])
        self._range = activation_range(settings["activation"])
        self._stats = LayerStatsCallback(None, update_freq="epoch", on_finding="ignore")

    def _fresh(self, name: str) -> keras.Model:
        s = self.settings
        return build(self._shape, self.data.classes, s["depth"], s["units"], s["activation"], name)

    def run(self, name: str, seed: int, log_dir: str | None, on_epoch: Callable[[], None]) -> Run:
        """Trains from the initializer of that name and says what came of it."""
        with python_random(seed):
            self.model.set_weights(self._fresh(name).get_weights())
        for variable, value in zip(self.model.optimizer.variables, self._unused_optimizer, strict=True):
            variable.assign(value)
        before = self._before_training()
        self._stats.start_run(log_dir)
        callbacks: list[Any] = [self._stats, keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: on_epoch())]
        if log_dir is not None:
            callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False))
        data = self.data
        with session(log_dir, {"initializer": name, "seed": seed, **self.settings}):
            history = self.model.fit(
                ShuffledBatches(data.x_train, data.y_train, self.settings["batch_size"], seed),
                epochs=self.settings["epochs"],
                shuffle=False,  # Keras would reorder the batches once more, by Python's `random`
                validation_data=(data.x_test, data.y_test),
                callbacks=callbacks,
                verbose=0,
            ).history
        train_loss, train_accuracy = self.model.evaluate(data.x_train, data.y_train, batch_size=512, verbose=0)
        at_start = self._stats.reports[0]
        paths = [layer.name for layer in self.hidden]
        return Run(
            initializer=name,
            seed=seed,
            forward=[at_start.statistic("activation_variance")[path] for path in paths],
            backward=[at_start.statistic("activation_gradient_variance")[path] for path in paths],
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            test_loss=history["val_loss"][-1],
            test_accuracy=history["val_accuracy"][-1],
            history=history,
            **before,
        )

    def _before_training(self) -> dict[str, Any]:
        """Shares of units that carry nothing, over all hidden layers, and the activations' histograms."""
        outputs = self._activations.predict(self.data.x_train[:PROBED], batch_size=PROBED, verbose=0)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        dead = np.concatenate([dead_units(layer) for layer in outputs])
        saturated = np.concatenate([saturated_units(layer, self._range) for layer in outputs]) & ~dead
        return {
            "dead": float(dead.mean()),
            "saturated": float(saturated.mean()),
            "histograms": [histogram(layer) for layer in outputs],
        }
