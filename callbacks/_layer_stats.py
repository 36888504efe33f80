"""LayerStatsCallback: what every layer's signal does while `model.fit` runs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import keras

from keras_initkit.callbacks import _options, _summary
from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.callbacks._progress import steps_done
from keras_initkit.callbacks._run_diagnosis import RunDiagnosis, tell
from keras_initkit.callbacks._run_log import histograms_of, log_in
from keras_initkit.callbacks._schedule import schedule
from keras_initkit.capture.backends import step_meter, writes_logs
from keras_initkit.capture.step._reduction import DEFAULT_SAMPLE, MeasurementSpec
from keras_initkit.report._render_figures import draw_history
from keras_initkit.report._report import SignalReport
from keras_initkit.report._scalars import check_statistics, needed_kinds
from keras_initkit.structure._layer_paths import weighted_layers
from keras_initkit.structure._selection import Layers, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_initkit.diagnosis import Finding


class LayerStatsCallback(keras.callbacks.Callback):
    """Logs what the signal does in every layer, forward and backward, to TensorBoard while `fit` runs.

    The statistics are taken inside the training step itself, from the tensors that it computes anyway.
    Training is not changed: weights, optimizer state and history come out the same to the last bit, and
    steps that are not measured run the very function that Keras compiled.

    Scalars are written for every layer with weights under `<statistic>/<layer>`, the layer being its path
    in the model, in the run `<log_dir>/train`, beside those of `keras.callbacks.TensorBoard(log_dir)`:

    - `activation_mean`, `activation_variance`: the layer's output over batch and units;
    - `activation_gradient_variance`: the gradient of the loss with respect to that output;
    - `pre_activation_mean`, `pre_activation_variance`, `pre_activation_gradient_variance`: of what the layer's
      activation is applied to; only where `statistics` asks for them. Recurrent layers have none;
    - `dead_units`: share of units that are 0 for every example; `saturated`: share of outputs in the outer
      1 % of a bounded activation's range, `saturated_units`: share of units where nearly all are;
    - `weight_variance`, `weight_gradient_variance`, `weight_update_variance`: its kernels before the step, their
      gradient, and what the step added to them; `update_ratio`: standard deviation of the update over that
      of the weights, for which 1e-3 is usual;
    - `nonfinite`: number of NaN and infinite elements in all that was read of the layer.

    The custom-scalars tab draws all layers of one statistic in one chart. The horizontal axis is the number
    of training steps done before the measured one, so step 0 is the model as initialized. It goes on counting
    when `fit` is called again, and in a new process where the optimizer's state is restored. When training
    ends, the picture of `plot()` goes to the images tab and a summary to the text tab.

    Args:
        log_dir: where TensorBoard reads; made if missing. `None` measures without a log.
        update_freq: `"epoch"` measures the first batch of every epoch, `"batch"` every batch, an integer n
            every n-th batch; or a function of the number of steps done before: `every(100)`, which has the first
            ten too, `logarithmic()`, or your own. With `steps_per_execution` above 1, the last of the steps that
            run together.
        layers: which layers: a name or path, a compiled regular expression (searched in the path), a layer, a
            predicate of the layer, or a list of these; `None` is all that have weights.
        statistics: names of the above, or of statistics that `register_statistic` added; `None` is all of the above
            but those of pre-activations, which cost most: TensorFlow computes a product twice where reading it would
            keep it from being fused with what follows.
        histogram_freq: number of epochs between histograms of outputs, weights and the gradients of both, taken
            at an epoch's first measured step; 0 is none.
        sample_size: number of elements of each tensor that moments are taken of, spread over the batch: the
            default has a standard error of 1 % in the variance of independent elements. `None` reads all. NaN
            and infinities are found in any case.
        on_finding: what to do with what `diagnose` finds, once for each kind and layer: `"warn"`; `"stop"`, which
            ends training at an error and warns of the rest; `"ignore"`; or a function of the `Finding`.

    Attributes:
        reports: a `SignalReport` for each measured step, in order.

    Raises:
        ValueError: for an argument that is none of these; when training begins, where steps cannot be measured,
            or if `layers` fit none (of a model that is not built yet, at its first measured step).
        OSError: when training begins, if `log_dir` cannot be written.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike | None = "logs",
        update_freq: str | int | Callable[[int], bool] = "epoch",
        layers: Layers = None,
        statistics: Iterable[str] | None = None,
        histogram_freq: int = 0,
        sample_size: int | None = DEFAULT_SAMPLE,
        on_finding: str | Callable[[Any], Any] = "warn",
    ):
        super().__init__()
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self.update_freq = update_freq
        self.layers = layers
        self.statistics = check_statistics(statistics)
        self.histogram_freq = _options.checked_histogram_freq(histogram_freq)
        self.sample_size = _options.checked_sample_size(sample_size)
        self.on_finding = _options.checked_on_finding(on_finding)
        self.reports: list[SignalReport] = []
        self._due = schedule(update_freq)
        self._watch = RunDiagnosis()
        self._meter: Any = None
        self._metered: Any = None
        self._log: EventLog | None = None
        self._measuring = self._with_histograms = False
        self._begun, self._speaks = False, True
        self._epoch = 0
        self._steps_before_epoch = 0
        self._steps = self._steps_after = 0

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: neither an open file nor functions that were compiled for a model."""
        return {**vars(self), "_meter": None, "_metered": None, "_log": None}

    def start_run(self, log_dir: str | os.PathLike | None) -> None:
        """Forgets reports and findings and counts steps from 0 again, into another log.

        For a model that is trained anew from other weights, its optimizer reset: what was compiled to measure it
        is kept.
        """
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self.reports, self._watch = [], RunDiagnosis()
        self._steps = 0

    @property
    def findings(self) -> list[Finding]:
        """What `diagnose` found so far: a `Finding` for each kind and layer, in the order in which they came up."""
        return self._watch.findings

    def plot(self) -> Figure:
        """Heat maps of the variance by layer and measured step: activations on the left, gradients on the right.

        Raises:
            ValueError: if no step was measured.
        """
        if not self.reports:
            raise ValueError("plot: got a callback without a measured step, expected one that `fit` has run with.")
        return draw_history(self.reports, self._name())

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the log while the user can still act on an error."""
        if self._metered is not self.model:
            reading = MeasurementSpec(needed_kinds(self.statistics), self.sample_size)
            self._meter, self._metered = step_meter(self.model, self._chosen, reading), self.model
            self._watch.begin_another(self.reports)
        if self.model.built and all(layer.built for layer in self.model.layers):
            self._chosen(self.model)
        self._begun = False
        self._watch.begin()
        self._speaks = writes_logs()  # of several processes that train one model, one writes and warns
        self._log = None
        if self.log_dir is not None and self._speaks:
            self._log = log_in(os.path.join(self.log_dir, "train"), self.statistics)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Counts on from the epoch before; in the first one from what the optimizer has done."""
        if not self._begun:  # not before: callbacks restore a model's state when training begins
            self._begun = True
            self._resume_at(steps_done(self.model))
        self._epoch = epoch
        self._steps_before_epoch = self._steps
        self._with_histograms = self.histogram_freq > 0 and epoch % self.histogram_freq == 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Has the step measured if it is due."""
        # Not `self.model`, which on JAX copies the state back into the model at every use.
        steps = self._metered.steps_per_execution or 1
        # Keras counts the last chunk of an epoch as a whole one; later batches are numbered from its beginning.
        epoch_steps = (self.params or {}).get("steps") or batch + steps
        self._steps_after = self._steps_before_epoch + min(batch + steps, epoch_steps)
        self._measuring = self._due(self._steps_before_epoch + batch, batch, steps)
        if self._measuring:
            self._meter.arm(histograms=self._with_histograms)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Takes the measurement, if there was one, to the reports and to the log."""
        self._steps = self._steps_after
        rows = self._meter.collect() if self._measuring else []
        if not rows:
            return
        report = SignalReport.from_step(self._steps - 1, self._epoch, rows)
        self.reports.append(report)
        self._write(lambda log: log.scalars(report.step, report.scalars(self.statistics)))
        if self._with_histograms:
            self._with_histograms = False
            self._write(lambda log: log.histograms(report.step, histograms_of(report)))
        if self.on_finding != "ignore" and self._watch.is_due(self.reports):
            self._diagnose()

    def on_train_end(self, logs: Any = None) -> None:
        """Writes the run's picture and summary, and ends the log."""
        if self.on_finding != "ignore":
            self._diagnose()
        if self.reports:
            step, name = self.reports[-1].step, self._name()
            self._write(lambda log: log.text(step, _summary.TEXT, _summary.text_of(self.reports, name, self.findings)))
            self._write(lambda log: log.image(step, _summary.PICTURE, _summary.picture_of(self.reports, name)))
        self._log = None

    def _diagnose(self) -> None:
        new = self._watch.new_findings(self.reports, self.model)
        if new:
            self._write(lambda log: log.text(new[-1].step, _summary.FINDINGS, _summary.text_of_findings(new)))
            if self._speaks:
                tell(new, self.on_finding, bar=(self.params or {}).get("verbose") == 1)
            if self.on_finding == "stop" and any(finding.severity == "error" for finding in new):
                self.model.stop_training = True

    def _resume_at(self, steps: int) -> None:
        """Goes on with the log of a process that trained this model before."""
        if steps > self._steps:
            self._steps = steps
            self._write(lambda log: log.resumed_at(steps))

    def _write(self, write: Callable[[EventLog], None]) -> None:
        """Writes to the log, if there is one; an error, such as a full disk, must not end a long training."""
        if self._log is None:
            return
        try:
            write(self._log)
        except Exception as error:
            path, self._log = self._log.path, None
            reason = error.strerror or error if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            warnings.warn(
                f"LayerStatsCallback: cannot write to {path} ({reason}); training goes on without the log. What is "
                "measured stays in the callback's `reports`.",
                stacklevel=3,
            )

    def _name(self) -> str:
        return "" if self.model is None else self.model.name

    def _chosen(self, model: keras.Model) -> dict[str, keras.layers.Layer]:
        return select(weighted_layers(model), self.layers)
