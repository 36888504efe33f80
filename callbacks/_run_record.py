"""What becomes of the measured steps of a run: reports, a log and findings."""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from keras_initkit._compat import optimized_variables
from keras_initkit.callbacks._event_files import join
from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.callbacks._kept_reports import KeptReports
from keras_initkit.callbacks._layers_record import write_record
from keras_initkit.callbacks._run_diagnosis import OnFinding, RunDiagnosis, report_findings
from keras_initkit.callbacks._run_directory import make_run_directory
from keras_initkit.callbacks._run_log import RunLog, collect_histograms
from keras_initkit.callbacks._run_picture import RunPictures
from keras_initkit.callbacks._several_models import place_finding, read_flows, select_part
from keras_initkit.callbacks._sinks import Sink
from keras_initkit.capture.backends import missing_determinism, writes_logs
from keras_initkit.diagnosis import Finding, Findings
from keras_initkit.report._flow import LayerFlow
from keras_initkit.report._report import SignalReport
from keras_initkit.report._scalars import needed_kinds

Models = Callable[[], Mapping[str, keras.Model]]
_MANY = 10  # reports without a gradient of a weight: gradients may be accumulated over some steps


class RunRecord:
    """Keeps, logs and diagnoses measured steps, whoever runs them.

    Args:
        statistics: Names of the statistics that are logged.
        on_finding: What is done with findings, as `LayerStatsCallback` takes it.
        keep: Integer. Most reports that are kept; `None` keeps all.
        user: String. What warnings name.
        sinks: Sinks that get what is logged.
        display: Boolean. Whether the picture is shown in a notebook while the run goes on.

    Attributes:
        name: String. Names of the models.
        directory: String. Path or URL of the run's directory; `None` before it is opened and without a log.
    """

    def __init__(
        self,
        statistics: Sequence[str],
        on_finding: OnFinding,
        keep: int | None,
        user: str,
        sinks: Iterable[Sink] = (),
        display: bool = False,
    ):
        self._statistics, self._on_finding, self._keep, self._user = tuple(statistics), on_finding, keep, user
        self._sinks = list(sinks)
        self.reports = KeptReports(keep, statistics=self._statistics)
        self.findings = Findings()
        self.diagnoses: dict[str, RunDiagnosis] = {}
        self.log = RunLog()
        self.directory: str | None = None
        self._log_dir: str | None = None  # that the directory was made of
        self.name = ""
        self._display, self._pictures = display, RunPictures(user if display else None)
        self._recorded: EventLog | None = None  # the log that holds a record of the layers
        self._theory: SignalReport | None = None
        self._models: Models = dict
        self._is_chief = True
        self._flows: dict[str, tuple[LayerFlow, ...]] = {}  # by model
        self._without_gradients: int | None = 0  # reports without those of weights; `None` once one has some

    def restart(self) -> None:
        """Forgets reports and findings."""
        self.__init__(self._statistics, self._on_finding, self._keep, self._user, self._sinks, self._display)  # type: ignore[misc]

    def without_log(self) -> RunRecord:
        """Returns a record of the same run that can be copied and pickled."""
        other = object.__new__(RunRecord)
        pictures = RunPictures(self._user if self._display else None)
        vars(other).update(vars(self), log=RunLog(), _pictures=pictures, _recorded=None, _models=dict)
        return other

    def begin_by_hand(self, models: Mapping[str, keras.Model], optimizers: Sequence[Any]) -> None:
        """As `begin`, for a loop that is written by hand."""
        self._begin(lambda: models)
        for prefix, model in models.items() if self._on_finding != "ignore" else ():
            diagnosis = self.diagnoses.setdefault(prefix, RunDiagnosis(self._keep, self._user))
            diagnosis.begin_by_hand(model, _optimizer_of(model, optimizers))
        self._read_flows()

    def begin(self, models: Models, steps: int | None, is_new: bool) -> None:
        """Looks at models that are about to be trained.

        Args:
            models: Function that returns the models by the prefix of their layers' paths, as they are then: on JAX
                Keras keeps the state of a training elsewhere, until a callback asks for its model.
            steps: Integer. How many steps are planned, where it is known.
            is_new: Whether they are others than before.
        """
        self._begin(models)
        if is_new:
            self.log = RunLog()
        for prefix, model in models().items() if self._on_finding != "ignore" else ():
            diagnosis = self.diagnoses.setdefault(prefix, RunDiagnosis(self._keep, self._user))
            if is_new:
                diagnosis.begin_another()
            diagnosis.begin(model, steps)
        self._read_flows()

    def _begin(self, models: Models) -> None:
        self._models, self.name = models, ", ".join(model.name for model in models().values())
        self._pictures.begin()

    @contextlib.contextmanager
    def traced(self) -> Iterator[None]:
        """A context in which each model is traced once."""
        with contextlib.ExitStack() as stack:
            for diagnosis in self.diagnoses.values():
                stack.enter_context(diagnosis.traced())
            yield

    def open(self, log_dir: str | None, is_another: bool = False) -> None:
        """Opens the log, or goes on with the one of the last training of the same models.

        Of several processes that train one model, one writes and warns.

        Args:
            log_dir: String. Path or URL, `None` for no log.
            is_another: Boolean. Whether it is another run of one that has used this `log_dir`.

        Raises:
            OSError: If the directory cannot be written.
        """
        self._is_chief = writes_logs()
        if not self._is_chief:
            self.log = RunLog()
            return
        remedy = missing_determinism()
        if remedy:
            _warn_once(
                f"{self._user}: operations of this GPU may add up in another order each time, so that no two trainings "
                f"are the same to the last bit, measured or not. Use {remedy} where that matters."
            )
        events = self.log.events
        if is_another or log_dir != self._log_dir:
            self.directory, events = None, None
        try:
            if log_dir is not None and (events is None or not events.is_latest()):
                self.directory = self.directory or make_run_directory(log_dir, is_another)
                events = EventLog(join(self.directory, "train"))
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self._user}: cannot write the log to {self.directory or log_dir} ({error.strerror or error}), "
                "expected a directory where files can be made, or a path where one can. Choose another `log_dir`, or "
                "`log_dir=None` to measure without a log.",
            ) from error
        self._log_dir = log_dir
        self.log = RunLog(events, self._sinks, self._statistics, self._user)

    def add(self, report: SignalReport, batch: object = None, histograms: bool = False, bar: bool = False) -> bool:
        """Keeps and logs a report, and has it diagnosed; returns whether training is to stop."""
        self._look_for_gradients(report)
        if not self._flows and self.diagnoses:
            self._read_flows()  # the models were not built when training began
        report = replace(report, flow=tuple(itertools.chain(*self._flows.values())))
        self.reports.add(report)
        self.log.write_scalars(report)
        if self.log.events is not self._recorded:
            self._write_record()
        if self._is_chief:
            self._pictures.show(self.reports, self.name)
        if histograms:
            self.log.write(lambda log: log.histograms(report.step, collect_histograms(report)))
        due = []
        for prefix, diagnosis in self.diagnoses.items():
            diagnosis.read_batch(batch)
            if diagnosis.add(select_part(report, prefix)):
                due.append(prefix)
        return self._diagnose(due, bar)

    def draw(self) -> None:
        """Writes the picture of the steps so far to the log, unless that was done lately or they are in it."""
        self._pictures.draw(self.log, self.reports, self.name)

    def end(self, bar: bool = False) -> bool:
        """Writes the last findings of a training, and the run's picture and summary unless that was done lately."""
        self._warn_of_missing_gradients()
        stops = self._diagnose(list(self.diagnoses), bar)
        is_diagnosed = bool(self.diagnoses) and all(each.is_complete for each in self.diagnoses.values())
        self._pictures.end(self.log, self.reports, self.name, self.findings if is_diagnosed or self.findings else None)
        if self._is_chief:
            self._pictures.show(self.reports, self.name, at_once=True)
        if self.reports and self.log.events is not None:
            self._write_record()
        return stops

    def warn(self, message: str) -> None:
        """Warns, unless another process does."""
        if self._is_chief:
            warnings.warn(f"{self._user}: {message}", stacklevel=3)

    def _diagnose(self, prefixes: Sequence[str], bar: bool) -> bool:
        new: list[Finding] = []
        models = self._models() if prefixes else {}
        for prefix in filter(models.__contains__, prefixes):
            found = self.diagnoses[prefix].new_findings(models[prefix])
            new += [place_finding(finding, prefix) for finding in found] if prefix else found
        if not new:
            return False
        self.findings += new
        self.log.write_findings(new)
        self._write_record()
        if self._is_chief:
            report_findings(new, self._on_finding, bar, self._user)
        return self._on_finding == "stop" and any(finding.severity == "error" for finding in new)

    def set_theory(self, report: SignalReport) -> None:
        """Takes the predictions of a report into the log."""
        self._theory = report
        if self.reports:
            self._write_record()

    def _write_record(self) -> None:
        """Writes what the tab "Layers" reads: at the first step of a log, with new findings, and at the end."""
        self._recorded = self.log.events
        self.log.write(functools.partial(write_record, self.reports, self._statistics, self.findings, self._theory))

    def _read_flows(self) -> None:
        """Looks at what each layer reads. What goes wrong there does not matter to the training."""
        try:
            self._flows = read_flows(self._models(), self.diagnoses)
        except Exception as error:
            self._flows = {"": ()}
            self.warn(
                f"what each layer reads could not be seen ({type(error).__name__}: {error}); layers are judged in the "
                "order of their calls."
            )

    def _look_for_gradients(self, report: SignalReport) -> None:
        kinds = {row.tap.kind for row in report.rows}
        if "weight_gradient" in kinds:
            self._without_gradients = None
        elif self._without_gradients is not None and "output" in kinds:
            self._without_gradients += 1
            if self._without_gradients == _MANY:
                self._warn_of_missing_gradients()

    def _warn_of_missing_gradients(self) -> None:
        """Says once that no gradient of a weight was seen, though some are asked for and weights train."""
        unread, self._without_gradients = self._without_gradients, None
        if not unread or "weight_gradient" not in needed_kinds(self._statistics):
            return
        if any(model.trainable_variables for model in self._models().values()):
            self.warn(
                "no gradient of a weight was seen. They are read where the step gives them to an optimizer that is "
                "known: that of `compile`, one that the model keeps in an attribute, or `watch(..., optimizer=)`."
            )


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=5)


def _optimizer_of(model: keras.Model, optimizers: Sequence[Any]) -> Any:
    """Returns the Keras optimizer that updates a model, as far as is known."""
    own = {id(variable) for variable in model.trainable_variables}
    known = [each for each in optimizers if isinstance(each, keras.optimizers.Optimizer)]
    for optimizer in known:
        if any(id(variable) in own for variable in optimized_variables(optimizer)):
            return optimizer
    return known[0] if len(optimizers) == 1 and known else None
