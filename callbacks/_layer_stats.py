"""LayerStatsCallback: per-layer statistics in TensorBoard while `model.fit` runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import keras

from keras_initkit._checks import checked_count, checked_flag
from keras_initkit.callbacks._arguments import checked_log_dir, checked_on_finding, checked_sinks
from keras_initkit.callbacks._progress import steps_done
from keras_initkit.callbacks._run_attention import RunAttention
from keras_initkit.callbacks._run_diagnosis import OnFinding
from keras_initkit.callbacks._run_record import RunRecord
from keras_initkit.callbacks._run_results import RunResults
from keras_initkit.callbacks._schedule import UpdateFreq, make_schedule
from keras_initkit.callbacks._sinks import Sink
from keras_initkit.capture.backends import step_meter
from keras_initkit.capture.step._reduction import DEFAULT_SAMPLE, MeasurementSpec
from keras_initkit.report._report import SignalReport
from keras_initkit.report._scalars import check_statistics
from keras_initkit.structure._layer_paths import weighted_layers
from keras_initkit.structure._selection import Layers, select


class LayerStatsCallback(RunResults, keras.callbacks.Callback):
    """Logs statistics of every layer's activations, gradients and weights to TensorBoard while `fit` runs.

    The statistics are computed inside the training step, from the tensors that it computes anyway. Training is not
    changed: weights, optimizer state and history are the same to the last bit, unless they differ from run to run
    anyway (`tf.random`, a GPU without deterministic operations) or TensorFlow compiles the step by XLA
    (`jit_compile=True`), where last bits may differ; `verify` shows it. Steps that are not measured run the very
    function that Keras compiled.

    Scalars have the tag `<statistic>/<layer>`, where `<layer>` is the layer's path in the model. They go to the run
    `<log_dir>/train`, where `keras.callbacks.TensorBoard(log_dir)` writes too:

    - `activation_variance`: of the layer's output, over batch and units.
    - `activation_gradient_variance`: of the gradient of the loss with respect to that output.
    - `dead_units`: fraction of units that are 0 for every example, or that a separate `ReLU` layer makes so.
    - `saturated_units`: fraction of units of a bounded activation where nearly all outputs are in the outer 1 % of its
      range.
    - `weight_gradient_variance`: of the gradient with respect to the layer's kernels.
    - `update_ratio`: standard deviation of what the step adds to the kernels over theirs; 1e-3 is usual.
    - `nonfinite`: number of NaN and infinite elements in all measured tensors of the layer.

    Only if `statistics` names them:

    - `activation_mean`; `saturated`: fraction of outputs in the outer 1 % of a bounded activation's range.
    - `weight_variance`, `weight_update_variance`: of the kernels before the step, and of what the step adds to them.
    - `pre_activation_mean`, `pre_activation_variance`, `pre_activation_gradient_variance`: of the activation's input.
      Recurrent layers have none.
    - `attention_entropy`, `attention_logit`, `attention_future`, `attention_padding`: mean entropy of the heads'
      weights in nats, largest logit, and fractions of weight on later positions and on padding. They come from another
      pass over up to eleven examples of the measured batch, after the step.

    The custom-scalars tab has charts of all layers together, the images tab the picture of `plot()`, the text tab
    findings and a summary. The horizontal axis is the number of training steps before the measured one, so step 0 is
    the model as initialized.

    Args:
        log_dir: String or path. The directory that TensorBoard reads; made if missing, `~` being your home and
            `{time}` the time when training begins (`"logs/{time}"`: a directory for each run). A URL that fsspec
            knows, such as `"s3://bucket/logs"`, writes there. `None` measures without a log. A model that has not
            been trained warns if another run is there already, since TensorBoard draws both as one curve.
        update_freq: `"epoch"` measures the first batch of every epoch, `"batch"` every batch, an integer n every
            n-th batch. A function of the number of steps done decides for each step: `every(100)`, which measures
            the first ten too, `logarithmic()`, or your own. With `steps_per_execution` above 1, the last of the
            steps that run together is measured.
        layers: The layers to measure: a name or path, a compiled regular expression (searched in the path), a
            layer, a predicate of the layer, or a list of these. `None` measures all layers with weights.
        statistics: List of names of the statistics above or of registered ones (`report.register_statistic`); `None`
            is the first group. What no statistic needs is not computed: `nonfinite` takes a pass over all tensors. On
            TensorFlow a product is computed twice if reading a pre-activation would keep it from being fused.
        histogram_freq: Integer. Number of epochs between histograms of outputs, weights and the gradients of both,
            taken at an epoch's first measured step. 0 takes none.
        sample_size: Integer. Number of elements of each tensor that the moments are computed from, spread over the
            batch; the default has a standard error of 1 % in the variance of independent elements. `None` uses all
            elements. NaN and infinities are found in any case.
        on_finding: What to do with the findings of `diagnose`, once for each kind and layer. `"warn"` warns;
            `"stop"` ends training at an error and warns otherwise; `"ignore"` runs no diagnosis; a function is
            called with each `Finding`.
        keep: Integer. The most reports that stay in memory: evenly spread over the measured steps, the first and the
            last always among them. The log has all. `None` keeps all.
        exact: Boolean. On JAX, `False` measures a step inside the program that trains, in less time. XLA may then
            fuse less, and round otherwise: weights may differ in the last bits from those of a training without the
            callback. The other backends measure inside the step in any case, and exactly.
        sinks: List of `Sink`. Further places that get the statistics of each measured step and each finding:
            `JSONLinesSink`, `MLflowSink`, `WandbSink`, `TensorBoardSink`, or objects with the same two methods.
        display: Boolean. Whether a notebook shows `plot()` while the model trains, redrawn every other second at most.

    Raises:
        ValueError: If an argument is none of these. When training begins, if its steps cannot be measured, or if
            `layers` selects none (of a model that is not built yet: at the first measured step).
        OSError: When training begins, if `log_dir` cannot be written.

    Example:

    ```python
    stats = LayerStatsCallback("logs", update_freq=every(100))
    model.fit(x, y, epochs=5, callbacks=[stats])  # then: tensorboard --logdir logs
    print(stats.reports[0])  # the model as initialized
    stats.plot()
    ```
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = "logs",
        update_freq: UpdateFreq = "epoch",
        layers: Layers = None,
        statistics: Iterable[str] | None = None,
        histogram_freq: int = 0,
        sample_size: int | None = DEFAULT_SAMPLE,
        on_finding: OnFinding = "warn",
        keep: int | None = 1000,
        exact: bool = True,
        sinks: Iterable[Sink] = (),
        display: bool = False,
    ):
        super().__init__()
        self.params: dict[str, Any] | None = None  # Keras 3.3 has none before training
        self.log_dir = checked_log_dir(log_dir)
        self.update_freq = update_freq
        self.layers = layers
        self.statistics = check_statistics(statistics)
        self.histogram_freq = checked_count("histogram_freq", histogram_freq, 0)
        self.sample_size = sample_size if sample_size is None else checked_count("sample_size", sample_size)
        self.on_finding = checked_on_finding(on_finding)
        self.keep = keep if keep is None else checked_count("keep", keep, 2)
        self.exact = checked_flag("exact", exact)
        self.sinks = checked_sinks(sinks)
        self.display = checked_flag("display", display)
        self._due = make_schedule(update_freq)
        self._record = RunRecord(self.statistics, on_finding, self.keep, "LayerStatsCallback", self.sinks, self.display)
        self._attention = RunAttention(self.statistics)
        self._meter: Any = None
        self._metered: Any = None
        self._measuring = self._with_histograms = self._begun = False
        self._is_used = False  # whether this or what it is a copy of has begun a run in `log_dir`
        self._epoch = self._steps_before_epoch = self._steps = self._steps_after = 0
        self._due_steps = self._measured_steps = 0  # of this training

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out of a copy or a pickle the log and the functions that were compiled for a model."""
        record = self._record.without_log()
        return {**vars(self), "_meter": None, "_metered": None, "_record": record, "_is_used": True}

    def start_run(self, log_dir: str | os.PathLike[str] | None) -> None:
        """Forgets reports and findings and counts steps from 0 again, with another log.

        Use it to train the same model again from other weights, after a reset of its optimizer: the functions that
        were compiled to measure it are kept.

        Args:
            log_dir: String or path, as in the constructor.
        """
        self.log_dir = checked_log_dir(log_dir)
        self._record.restart()
        self._steps, self._is_used = 0, False

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the log while the user can still act on an error."""
        is_new = self._metered is not self.model
        # Trials of a search train a copy of the callback, or one callback on one model after the other.
        is_another, self._is_used = is_new and self._is_used and steps_done(self.model) == 0, True
        if is_another and self.log_dir is not None:
            self._record.restart()
            self._steps = 0
        self._record.begin(lambda: {"": self.model}, self._planned_steps(), is_new)
        if is_new:
            reading = MeasurementSpec.for_statistics(self.statistics, self.sample_size, self.exact)
            with self._record.traced():
                self._meter, self._metered = step_meter(self.model, self._select_layers, reading), self.model
        if self.model.built and all(layer.built for layer in self.model.layers):
            self._select_layers(self.model)
        self._begun = False
        self._due_steps = self._measured_steps = 0
        self._attention.begin()
        self._record.open(self.log_dir, is_another)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Continues to count from the previous epoch; in the first epoch, from the optimizer's step count."""
        if not self._begun:  # not before: callbacks restore a model's state when training begins
            self._begun = True
            self._resume_at(steps_done(self.model))
            if self._steps == 0:
                self._record.log.warn_of_another_run()
        self._epoch = epoch
        self._steps_before_epoch = self._steps
        self._with_histograms = self.histogram_freq > 0 and epoch % self.histogram_freq == 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Prepares the measurement of a step that is due."""
        # Not `self.model`, which on JAX copies the state back into the model at every use.
        steps = self._metered.steps_per_execution or 1
        # Keras counts the last chunk of an epoch as a whole one; later batches are numbered from its beginning.
        epoch_steps = (self.params or {}).get("steps") or batch + steps
        self._steps_after = self._steps_before_epoch + min(batch + steps, epoch_steps)
        self._measuring = self._due(self._steps_before_epoch + batch, batch, steps)
        if self._measuring:
            self._due_steps += 1
            self._meter.arm(histograms=self._with_histograms)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Adds the measurement, if there was one, to the reports and to the log."""
        self._steps = self._steps_after
        rows = self._meter.collect() if self._measuring else []
        if not rows:
            return
        self._measured_steps += 1
        report = SignalReport.from_step(self._steps - 1, self._epoch, rows)
        if self._attention.is_wanted:
            report = self._attention.completed(report, self.model, self._meter.batch)
        histograms, self._with_histograms = self._with_histograms, False
        if self._record.add(report, self._meter.batch, histograms, self._has_bar()):
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Draws the run so far."""
        self._record.draw()

    def on_train_end(self, logs: Any = None) -> None:
        """Writes the run's picture and summary, and closes the log."""
        if self._meter is not None:
            self._meter.disarm()
        if self._due_steps and not self._measured_steps and not self._meter.has_failed and self.model.weights:
            self._record.warn(
                f"no step was measured, of {self._due_steps} that were due. A step is measured where the loop runs "
                "`model.train_function`, as `fit` and `train_on_batch` do; of a model that runs eagerly, if its layers "
                "are built. Have the step of a loop of your own measured by `keras_initkit.watch`."
            )
        if self._record.end(self._has_bar()):
            self.model.stop_training = True

    def _has_bar(self) -> bool:
        return (self.params or {}).get("verbose") == 1

    def _planned_steps(self) -> int | None:
        epochs, steps = ((self.params or {}).get(name) for name in ("epochs", "steps"))
        return epochs * steps if epochs and steps else None

    def _resume_at(self, steps: int) -> None:
        """Continues the log of a process that trained this model before."""
        if steps > self._steps:
            self._steps = steps
            self._record.log.write(lambda log: log.resumed_at(steps))

    def _select_layers(self, model: keras.Model) -> dict[str, keras.layers.Layer]:
        return select(weighted_layers(model), self.layers)
