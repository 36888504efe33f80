"""LayerStatsCallback: what every layer's signal does while `model.fit` runs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import keras

from keras_initkit.callbacks.event_log import EventLog, one_chart_each
from keras_initkit.callbacks.schedule import schedule
from keras_initkit.signal.backends import step_meter
from keras_initkit.signal.report import STATISTICS, SignalReport
from keras_initkit.signal.step import StepReading
from keras_initkit.structure.graph import weighted_layers
from keras_initkit.structure.selection import Layers, select


class LayerStatsCallback(keras.callbacks.Callback):
    """Logs mean and variance of every layer's activations, gradients and weights to TensorBoard.

    The statistics are taken inside the training step itself, from the tensors that it computes anyway.
    Training is not changed: weights, optimizer state and history come out the same to the last bit, and
    steps that are not measured run the very function that Keras compiled.

    Scalars are written for every layer with weights under `<statistic>/<layer>`, the layer being its path
    in the model, in the run `<log_dir>/train`, beside those of `keras.callbacks.TensorBoard(log_dir)`:

    - `activation_mean`, `activation_variance`: the layer's output over batch and units;
    - `activation_gradient_variance`: the gradient of the loss with respect to that output;
    - `weight_variance`, `weight_gradient_variance`: its kernels before the step, and their gradient.

    The custom-scalars tab draws all layers of one statistic in one chart. The horizontal axis is the number
    of training steps done before the measured one, so step 0 is the model as initialized; it goes on
    counting when `fit` is called again.

    Args:
        log_dir: where TensorBoard reads; made if missing. `None` measures without a log.
        update_freq: `"epoch"` measures the first batch of every epoch, `"batch"` every batch, an integer n
            every n-th batch; or a function of the number of steps done before: `every(100)`, which has the first
            ten too, `logarithmic()`, or your own. With `steps_per_execution` above 1, the last of the steps that
            run together.
        layers: which layers: a name or path, a compiled regular expression (searched in the path), a layer, a
            predicate of the layer, or a list of these; `None` is all that have weights.

    Attributes:
        reports: a `SignalReport` for each measured step, in order.

    Raises:
        ValueError: for an unknown `update_freq`; when training begins, on a backend other than TensorFlow or
            under several replicas, or if `layers` fit none (of a model that is not built yet, at its first
            measured step).
        OSError: when training begins, if `log_dir` cannot be written.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike | None = "logs",
        update_freq: str | int | Callable[[int], bool] = "epoch",
        layers: Layers = None,
    ):
        super().__init__()
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self.update_freq = update_freq
        self.layers = layers
        self.reports: list[SignalReport] = []
        self._due = schedule(update_freq)
        self._meter: Any = None
        self._metered: keras.Model | None = None
        self._log: EventLog | None = None
        self._measuring = False
        self._epoch = 0
        self._steps_before_epoch = 0
        self._steps = self._steps_after = 0

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: neither an open file nor functions that were compiled for a model."""
        return {**vars(self), "_meter": None, "_metered": None, "_log": None}

    def start_run(self, log_dir: str | os.PathLike | None) -> None:
        """Forgets the reports and counts steps from 0 again, into another log.

        For a model that is trained anew from other weights: what was compiled to measure it is kept.
        """
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self.reports = []
        self._steps = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the log while the user can still act on an error."""
        if self._metered is not self.model:
            self._meter, self._metered = step_meter(self.model, self._chosen, StepReading()), self.model
        if self.model.built and all(layer.built for layer in self.model.layers):
            self._chosen(self.model)
        self._log = None if self.log_dir is None else _log_in(os.path.join(self.log_dir, "train"))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Counts on from the epoch before."""
        self._epoch = epoch
        self._steps_before_epoch = self._steps

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Has the step measured if it is due."""
        steps = self.model.steps_per_execution or 1
        # Keras counts the last chunk of an epoch as a whole one; later batches are numbered from its beginning.
        epoch_steps = (self.params or {}).get("steps") or batch + steps
        self._steps_after = self._steps_before_epoch + min(batch + steps, epoch_steps)
        self._measuring = self._due(self._steps_before_epoch + batch, batch, steps)
        if self._measuring:
            self._meter.arm()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Takes the measurement, if there was one, to the reports and to the log."""
        self._steps = self._steps_after
        rows = self._meter.collect() if self._measuring else []
        if not rows:
            return
        report = SignalReport.of_step(self._steps - 1, self._epoch, rows)
        self.reports.append(report)
        if self._log is not None:
            try:
                self._log.scalars(report.step, report.scalars())
            except OSError as error:  # a full disk must not end a long training
                path, self._log = self._log.path, None
                warnings.warn(
                    f"LayerStatsCallback: cannot write to {path} ({error.strerror or error}); training goes on "
                    "without the log. What is measured stays in the callback's `reports`.",
                    stacklevel=2,
                )

    def on_train_end(self, logs: Any = None) -> None:
        """Ends the log."""
        self._log = None

    def _chosen(self, model: keras.Model) -> dict[str, keras.layers.Layer]:
        return select(weighted_layers(model), self.layers)


def _log_in(directory: str) -> EventLog:
    """A log with the charts of every statistic, or an error that says what to do."""
    try:
        log = EventLog(directory)
        log.summary(one_chart_each({name: name.replace("_", " ") for name in STATISTICS}))
    except OSError as error:
        raise OSError(
            error.errno,
            f"LayerStatsCallback: cannot write the log to {directory} ({error.strerror or error}), expected a "
            "directory where files can be made, or a path where one can. Choose another `log_dir`, or "
            "`log_dir=None` to measure without a log.",
        ) from error
    return log
