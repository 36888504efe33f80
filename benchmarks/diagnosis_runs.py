"""Trains a model under observation and keeps what was seen, so that rules can be tried on it again and again."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from diagnosis_data import Data

from keras_initkit import probe
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.schemes import Plan
from keras_initkit.schemes.draw._draw_all import reset
from keras_initkit.signal import SignalReport
from keras_initkit.structure import weighted_layers

PROBED = 128  # examples of the probe before training


class Run(NamedTuple):
    """What was seen of one training run.

    Args:
        before: the probe of the untrained model.
        reports: of the measured steps.
        weights_before, weights_after: of the model.
        score: on the test set, see `diagnosis_data.Data`.
    """

    before: SignalReport
    reports: list[SignalReport]
    weights_before: list[np.ndarray]
    weights_after: list[np.ndarray]
    score: float
    chance: float


class Observed:
    """What `diagnose` reads of a callback: the reports so far, and the model."""

    def __init__(self, reports: list[SignalReport], model: keras.Model):
        self.reports, self.model = reports, model


class Trainer:
    """Trains one compiled model from many beginnings; what was compiled serves them all."""

    def __init__(self, model: keras.Model, data: Data, epochs: int, batch_size: int):
        self.model, self.data, self.epochs, self.batch_size = model, data, epochs, batch_size
        self._epoch = -(-len(data.x) // batch_size)
        self.observer = LayerStatsCallback(None, update_freq=self._due)
        self._rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))

    def _due(self, step: int) -> bool:
        """The first of each epoch, as by default, and 0, 1, 2, 4, 8, ... of the first one."""
        return step % self._epoch == 0 or (step < self._epoch and step & (step - 1) == 0)

    def begin(self, seed: int, rate_factor: float = 1.0) -> None:
        """The model and its optimizer as new, drawn by the seed."""
        keras.utils.set_random_seed(seed)
        plan = Plan(self.model, weighted_layers(self.model), seed=seed)
        reset(plan)  # not `initialize`, which measures before and after
        if left := [change.layer for change in plan.changes() if change.skipped]:
            raise ValueError(f"{self.model.name}: {', '.join(left)} could not be drawn anew.")
        optimizer = self.model.optimizer
        optimizer.build(self.model.trainable_variables)
        for variable in optimizer.variables:
            if variable is not optimizer.learning_rate:
                variable.assign(keras.ops.zeros_like(variable.value))
        optimizer.learning_rate.assign(self._rate * rate_factor)

    def run(self, x: np.ndarray | None = None, x_test: np.ndarray | None = None) -> Run:
        """Trains from where the model is; other inputs than the data's may be given."""
        x = self.data.x if x is None else x
        before = probe(self.model, x[:PROBED], self.data.y[:PROBED])
        weights = self.model.get_weights()
        score = self.trained(x, x_test, [self.observer])
        return Run(before, self.observer.reports, weights, self.model.get_weights(), score, self.data.chance)

    def trained(self, x: np.ndarray, x_test: np.ndarray | None = None, callbacks: Any = ()) -> float:
        """The score after training."""
        self.observer.start_run(None)
        self.model.fit(x, self.data.y, self.batch_size, self.epochs, verbose=0, shuffle=True, callbacks=list(callbacks))
        predictions = self.model(self.data.x_test if x_test is None else x_test, training=False)
        return self.data.score_of(keras.ops.convert_to_numpy(predictions))


def kept(path: Path, make: Callable[[], Run]) -> Run:
    """The run of that file, or a new one that is then kept. Only this script's own files are read."""
    if path.exists():
        with open(path, "rb") as file:
            run = Run(*pickle.load(file))
        # How the signal flows is asked of the model again, by today's rules.
        before, *reports = (dataclasses.replace(report, flow=()) for report in (run.before, *run.reports))
        return run._replace(before=before, reports=reports)
    run = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(tuple(run)))
    partial.rename(path)
    return run
