"""LayerStatsCallback: per-layer statistics in TensorBoard while `model.fit` runs."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras

from keras_initkit._checks import checked_count, checked_option
from keras_initkit.callbacks import _summary
from keras_initkit.callbacks._progress import steps_done
from keras_initkit.callbacks._run_attention import RunAttention
from keras_initkit.callbacks._run_diagnosis import OnFinding, RunDiagnosis, report_findings
from keras_initkit.callbacks._run_log import RunLog, collect_histograms
from keras_initkit.callbacks._schedule import UpdateFreq, make_schedule
from keras_initkit.capture.backends import step_meter, writes_logs
from keras_initkit.capture.step._reduction import DEFAULT_SAMPLE, MeasurementSpec
from keras_initkit.diagnosis import Findings
from keras_initkit.diagnosis.task._task import Task
from keras_initkit.report._render_figures import draw_history
from keras_initkit.report._report import SignalReport
from keras_initkit.report._scalars import check_statistics, needed_kinds
from keras_initkit.structure._layer_paths import weighted_layers
from keras_initkit.structure._selection import Layers, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LayerStatsCallback(keras.callbacks.Callback):
    """Logs statistics of every layer's activations, gradients and weights to TensorBoard while `fit` runs.

    The statistics are computed inside the training step, from the tensors that it computes anyway. Training is not
    changed: weights, optimizer state and history are the same to the last bit, unless they differ from run to run
    anyway (`tf.random`, a GPU without deterministic operations), as `verify` shows; steps that are not measured run
    the very function that Keras compiled.

    Scalars have the tag `<statistic>/<layer>`, where `<layer>` is the layer's path in the model. They go to the run
    `<log_dir>/train`, where `keras.callbacks.TensorBoard(log_dir)` writes too:

    - `activation_mean`, `activation_variance`: of the layer's output, over batch and units.
    - `activation_gradient_variance`: of the gradient of the loss with respect to that output.
    - `pre_activation_mean`, `pre_activation_variance`, `pre_activation_gradient_variance`: of the activation's
      input; only if `statistics` names them. Recurrent layers have none.
    - `dead_units`: fraction of units that are 0 for every example, or that a separate `ReLU` layer makes so.
      `saturated`: fraction of outputs in the outer 1 % of a bounded activation's range. `saturated_units`: fraction
      of units where nearly all outputs are saturated.
    - `weight_variance`, `weight_gradient_variance`, `weight_update_variance`: of the layer's kernels before the
      step, of their gradient, and of what the step adds to them.
    - `update_ratio`: standard deviation of the update divided by that of the weights; 1e-3 is usual.
    - `nonfinite`: number of NaN and infinite elements in all measured tensors of the layer.
    - `attention_entropy`, `attention_logit`, `attention_future`, `attention_padding`: mean entropy of the heads'
      weights in nats, largest logit, and fractions of weight on later positions and on padding; only if `statistics`
      names one of them. They come from another pass over up to eleven examples of the measured batch, after the step.

    The custom-scalars tab has a chart for each statistic with a line for each layer. The horizontal axis is the
    number of training steps before the measured one, so step 0 is the model as initialized. The count goes on when
    `fit` is called again, and in a new process that restores the optimizer's state. When training ends, the picture
    of `plot()` goes to the images tab, and a summary to the text tab.

    Args:
        log_dir: String or path. The directory that TensorBoard reads; made if missing, `~` being your home. `None`
            measures without a log. A model that has not been trained warns if another run is there already, since
            TensorBoard draws both as one curve.
        update_freq: `"epoch"` measures the first batch of every epoch, `"batch"` every batch, an integer n every
            n-th batch. A function of the number of steps done decides for each step: `every(100)`, which measures
            the first ten too, `logarithmic()`, or your own. With `steps_per_execution` above 1, the last of the
            steps that run together is measured.
        layers: The layers to measure: a name or path, a compiled regular expression (searched in the path), a
            layer, a predicate of the layer, or a list of these. `None` measures all layers with weights.
        statistics: List of names of the statistics above or of registered ones (`report.register_statistic`).
            `None` is all above but those of pre-activations and attention. The former cost most: TensorFlow computes a
            product twice if reading it would keep it from being fused with what follows.
        histogram_freq: Integer. Number of epochs between histograms of outputs, weights and the gradients of both,
            taken at an epoch's first measured step. 0 takes none.
        sample_size: Integer. Number of elements of each tensor that the moments are computed from, spread over the
            batch; the default has a standard error of 1 % in the variance of independent elements. `None` uses all
            elements. NaN and infinities are found in any case.
        on_finding: What to do with the findings of `diagnose`, once for each kind and layer. `"warn"` warns;
            `"stop"` ends training at an error and warns otherwise; `"ignore"` runs no diagnosis; a function is
            called with each `Finding`.

    Attributes:
        reports: List of `SignalReport`, one for each measured step, in order.

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
    ):
        super().__init__()
        self.params: dict[str, Any] | None = None  # Keras 3.3 has none before training
        if not callable(on_finding):
            checked_option("on_finding", on_finding, ("warn", "stop", "ignore"), ", or a function that takes a Finding")
        self.log_dir = _checked_path(log_dir)
        self.update_freq = update_freq
        self.layers = layers
        self.statistics = check_statistics(statistics)
        self.histogram_freq = checked_count("histogram_freq", histogram_freq, 0)
        self.sample_size = sample_size if sample_size is None else checked_count("sample_size", sample_size)
        self.on_finding = on_finding
        self.reports: list[SignalReport] = []
        self._due = make_schedule(update_freq)
        self._diagnosis = RunDiagnosis()
        self._attention = RunAttention(self.statistics)
        self._meter: Any = None
        self._metered: Any = None
        self._log = RunLog()
        self._measuring = self._with_histograms = False
        self._begun, self._is_chief = False, True
        self._epoch = 0
        self._steps_before_epoch = 0
        self._steps = self._steps_after = 0
        self._due_steps = self._measured_steps = 0  # of this training

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out of a copy or a pickle the log and the functions that were compiled for a model."""
        return {**vars(self), "_meter": None, "_metered": None, "_log": RunLog()}

    def start_run(self, log_dir: str | os.PathLike[str] | None) -> None:
        """Forgets reports and findings and counts steps from 0 again, with another log.

        Use it to train the same model again from other weights, after a reset of its optimizer: the functions that
        were compiled to measure it are kept.

        Args:
            log_dir: String or path, as in the constructor.
        """
        self.log_dir = _checked_path(log_dir)
        self.reports, self._diagnosis = [], RunDiagnosis()
        self._steps = 0

    @property
    def findings(self) -> Findings:
        """Findings of `diagnose` so far, one for each kind and layer, in the order in which they appeared."""
        return self._diagnosis.findings

    @property
    def task(self) -> Task | None:
        """Heads, losses and labels, as the measured steps have shown them; `None` before the first diagnosis."""
        return self._diagnosis.task

    def plot(self) -> Figure:
        """Draws heat maps of the variance by layer and measured step, activations on the left, gradients on the right.

        Raises:
            ValueError: If no step was measured.
        """
        if not self.reports:
            raise ValueError("plot: got a callback without a measured step, expected one that `fit` has run with.")
        return draw_history(self.reports, self._name())

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the log while the user can still act on an error."""
        is_new = self._metered is not self.model
        if is_new:
            self._diagnosis.begin_another(self.reports)
        if self.on_finding != "ignore":
            self._diagnosis.begin(self.model, self._planned_steps())
        if is_new:
            reading = MeasurementSpec(needed_kinds(self.statistics), self.sample_size)
            with self._diagnosis.traced():
                self._meter, self._metered = step_meter(self.model, self._select_layers, reading), self.model
        if self.model.built and all(layer.built for layer in self.model.layers):
            self._select_layers(self.model)
        self._begun = False
        self._due_steps = self._measured_steps = 0
        self._attention.begin()
        self._is_chief = writes_logs()  # of several processes that train one model, one writes and warns
        log_dir = self.log_dir if self._is_chief else None
        self._log = RunLog(None if log_dir is None else os.path.join(log_dir, "train"), self.statistics)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Continues to count from the previous epoch; in the first epoch, from the optimizer's step count."""
        if not self._begun:  # not before: callbacks restore a model's state when training begins
            self._begun = True
            self._resume_at(steps_done(self.model))
            if self._steps == 0:
                self._log.warn_of_another_run()
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
        self.reports.append(report)
        self._log.write_scalars(report)
        if self._with_histograms:
            self._with_histograms = False
            self._log.write(lambda log: log.histograms(report.step, collect_histograms(report)))
        if self.on_finding != "ignore":
            self._diagnosis.read_batch(self._meter.batch)
            if self._diagnosis.is_due(self.reports):
                self._diagnose()

    def on_train_end(self, logs: Any = None) -> None:
        """Writes the run's picture and summary, and closes the log."""
        if self._meter is not None:
            self._meter.disarm()
        is_silent = self._due_steps and not self._measured_steps and not self._meter.has_failed
        if is_silent and self._is_chief and self.model.weights:
            self._warn_of_no_step()
        if self.on_finding != "ignore":
            self._diagnose()
        if self.reports:
            step, name = self.reports[-1].step, self._name()
            findings = None if self.on_finding == "ignore" else self.findings
            self._log.write(lambda log: log.text(step, _summary.TEXT, _summary.summarize(self.reports, name, findings)))
            self._log.write(lambda log: log.image(step, _summary.PICTURE, _summary.draw_picture(self.reports, name)))
        self._log = RunLog()

    def _warn_of_no_step(self) -> None:
        warnings.warn(
            f"LayerStatsCallback: no step was measured, of {self._due_steps} that were due. A step is measured where "
            "the loop runs `model.train_function`, as `fit` and `train_on_batch` do; of a model that runs eagerly, if "
            "its layers are built.",
            stacklevel=2,
        )

    def _diagnose(self) -> None:
        new = self._diagnosis.new_findings(self.reports, self.model)
        if new:
            self._log.write(lambda log: log.text(new[-1].step, _summary.FINDINGS, _summary.list_findings(new)))
            if self._is_chief:
                report_findings(new, self.on_finding, bar=(self.params or {}).get("verbose") == 1)
            if self.on_finding == "stop" and any(finding.severity == "error" for finding in new):
                self.model.stop_training = True

    def _planned_steps(self) -> int | None:
        epochs, steps = ((self.params or {}).get(name) for name in ("epochs", "steps"))
        return epochs * steps if epochs and steps else None

    def _resume_at(self, steps: int) -> None:
        """Continues the log of a process that trained this model before."""
        if steps > self._steps:
            self._steps = steps
            self._log.write(lambda log: log.resumed_at(steps))

    def _name(self) -> str:
        return "" if self.model is None else self.model.name

    def _select_layers(self, model: keras.Model) -> dict[str, keras.layers.Layer]:
        return select(weighted_layers(model), self.layers)


def _checked_path(log_dir: Any) -> str | None:
    if log_dir is not None and not isinstance(log_dir, (str, os.PathLike)):
        raise ValueError(f"log_dir: got {log_dir!r}, expected a path, or None to measure without a log.")
    if log_dir is None:
        return None
    path = os.path.expanduser(os.fspath(log_dir))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        raise ValueError(
            f"log_dir: got {path!r}, expected a path of this machine's file system. Log to a local directory, and copy "
            "or mount it."
        )
    return path
