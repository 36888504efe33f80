"""One model, trained from many initializations, with its signal measured before the first update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_initkit._random_state import python_random
from keras_initkit.callbacks._layer_stats import LayerStatsCallback
from keras_initkit.capture._probe import probe
from keras_initkit.comparison._contestants import Contestant
from keras_initkit.comparison._datasets import Dataset, ShuffledBatches
from keras_initkit.comparison._hparams import VERDICT, session
from keras_initkit.comparison._result import Run
from keras_initkit.comparison._verdict import learned, trend
from keras_initkit.theory import activation_range

PROBED = 512  # examples whose activations are drawn as histograms
NO_HISTOGRAM = (0, 0), (0.0, 0.5, 1.0)  # of a layer without a finite value


class Experiment:
    """Trains one compiled model again and again from fresh weights: traced once, whatever the number of runs."""

    def __init__(self, data: Dataset, settings: dict[str, Any]):
        self.data, self.settings = data, settings
        self.model = self._build(Contestant("zeros", keras.initializers.Zeros(), False))
        optimizer = keras.optimizers.SGD(settings["learning_rate"], momentum=0.9)
        self.model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        optimizer.build(self.model.trainable_variables)
        self._unused_optimizer = [variable.numpy() for variable in optimizer.variables]
        self._hidden = [layer.name for layer in self.model.layers if layer.name.startswith("hidden_")]
        self._stats = LayerStatsCallback(None, update_freq="epoch", on_finding="ignore")

    def _build(self, contestant: Contestant) -> keras.Model:
        """The model, each layer with a copy of the initializer, since one instance draws the same for all."""
        depth, units, activation = (self.settings[name] for name in ("depth", "units", "activation"))
        layers = [keras.Input(self.data.x_train.shape[1:]), keras.layers.Flatten()]
        for index in range(1, depth + 1):
            kernel = contestant.copy(activation)
            layers.append(keras.layers.Dense(units, activation, kernel_initializer=kernel, name=f"hidden_{index:02d}"))
        kernel = contestant.copy("linear")
        layers.append(keras.layers.Dense(self.data.classes, "softmax", kernel_initializer=kernel, name="classifier"))
        return keras.Sequential(layers)

    def run(self, contestant: Contestant, seed: int, log_dir: str | None, on_epoch: Callable[[int], None]) -> Run:
        """Trains from this initializer and returns what was measured before, while and after training."""
        with python_random(seed):
            self.model.set_weights(self._build(contestant).get_weights())
        for variable, value in zip(self.model.optimizer.variables, self._unused_optimizer, strict=True):
            variable.assign(value)
        before = self._before_training()
        self._stats.start_run(log_dir)
        callbacks: list[Any] = [
            self._stats,
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch(epoch)),
        ]
        if log_dir is not None:
            callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False))
        data = self.data
        with session(log_dir, {"initializer": contestant.name, "seed": seed, **self.settings}) as outcome:
            history = self.model.fit(
                ShuffledBatches(data.x_train, data.y_train, self.settings["batch_size"], seed),
                epochs=self.settings["epochs"],
                shuffle=False,  # Keras would reorder the batches once more, by Python's `random`
                validation_data=(data.x_test, data.y_test),
                callbacks=callbacks,
                verbose=0,
            ).history
            train_loss, train_accuracy = self.model.evaluate(data.x_train, data.y_train, batch_size=512, verbose=0)
            first_step = self._stats.reports[0]
            run = Run(
                initializer=contestant.name,
                seed=seed,
                forward=[first_step.statistic("activation_variance")[path] for path in self._hidden],
                backward=[first_step.statistic("activation_gradient_variance")[path] for path in self._hidden],
                train_loss=train_loss,
                train_accuracy=train_accuracy,
                test_loss=history["val_loss"][-1],
                test_accuracy=history["val_accuracy"][-1],
                history=history,
                **before,
            )
            is_better = learned(run.test_accuracy, data.chance, len(data.y_test))
            trends = trend(run.backward[::-1]), trend(run.forward)
            outcome.update(zip(VERDICT, ("yes" if is_better else "no", *trends), strict=True))
        return run

    def _before_training(self) -> dict[str, Any]:
        """Fractions of units that carry nothing, over all hidden layers, and the activations' histograms."""
        with np.errstate(over="ignore", invalid="ignore"):  # a deep network may overflow, and so does its prediction
            report = probe(self.model, self.data.x_train[:PROBED], gradients=False, training=False)
        rows = {row.tap.layer: row for row in report.rows if row.tap.kind == "output"}
        hidden = [rows[path] for path in self._hidden]
        dead = np.array([row.dead_units for row in hidden])
        saturated = np.array([row.saturated_units or 0.0 for row in hidden])  # `None` if nothing bounds the activation
        if 0 in activation_range(self.settings["activation"]):  # where a dead unit is a saturated one too
            saturated = np.maximum(saturated - dead, 0.0)
        return {
            "dead": float(dead.mean()),
            "saturated": float(saturated.mean()),
            "histograms": [row.histogram or NO_HISTOGRAM for row in hidden],
            "activations": [
                {"mean": m.mean, "stddev": m.stddev, "zeros": m.zeros} for m in (row.moments for row in hidden)
            ],
        }
