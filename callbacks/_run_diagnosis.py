"""Diagnosis while a model trains."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras

from keras_initkit.callbacks._kept_reports import KeptReports
from keras_initkit.callbacks._progress import steps_done
from keras_initkit.callbacks._schedule import logarithmic
from keras_initkit.diagnosis import Finding, Findings
from keras_initkit.diagnosis._judge import diagnose_reports
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.diagnosis.task._run_batches import RunBatches
from keras_initkit.diagnosis.task._task import Task, make_task
from keras_initkit.report._report import SignalReport
from keras_initkit.structure._calls import Traces, calls, traced_once

OnFinding = Literal["warn", "stop", "ignore"] | Callable[[Finding], Any]
_often = logarithmic(10)
_NO_END = 10**9  # steps


class RunDiagnosis:
    """Diagnoses a run as it goes on, and reports each problem of a layer once.

    A diagnosis takes 0.2 to 0.7 milliseconds for each layer, so it is not made after every measured step, but after
    the first ten, then ten in each decade, the one where NaN begins, and the last.

    Args:
        keep: Integer. Most reports that are kept for it.
        user: String. What its warnings name.
    """

    def __init__(self, keep: int | None = None, user: str = "LayerStatsCallback") -> None:
        self._user = user
        self._by_hand: dict[str, Any] = {}  # what `ModelContext` has to know of a loop
        self._reports = KeptReports(keep)
        self._known: set[tuple[str, str]] = set()
        self._judged: SignalReport | None = None
        self._finite = True
        self._broken = False
        self._context: ModelContext | None = None  # kept as long as the model stays the same
        self._task: Task | None = None  # likewise
        self._batches = RunBatches()
        self._traces: Traces = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_context": None, "_task": None, "_traces": {}, "_by_hand": {}}

    @property
    def task(self) -> Task | None:
        """What the model is trained for, as far as the steps have shown it."""
        return self._task

    @property
    def is_complete(self) -> bool:
        """Whether the last report has been diagnosed."""
        return not self._broken and bool(self._reports) and self._judged is self._reports[-1]

    def begin_by_hand(self, model: keras.Model, optimizer: Any) -> None:
        """As `begin`, for a loop that is written by hand: how many steps it makes is known when it ends."""
        self._by_hand = {"by_hand": True, "optimizer": optimizer}
        self.begin(model, _NO_END)

    def begin(self, model: keras.Model, steps: int | None = None) -> None:
        """Forgets the model's structure, which may have changed since the last training, and looks at it anew.

        Now, and not between two steps: what a user's `call` keeps in Python then stays that of the steps.

        Args:
            model: Keras model.
            steps: Integer. Number of steps that `fit` is about to run, where it is known.
        """
        self._context, self._task, self._traces = None, None, {}
        self._batches.begin(model, steps, steps_done(model))
        with self.traced(), contextlib.suppress(ValueError):  # it is not built, or cannot be traced
            calls(model)

    def end(self) -> None:
        """Notes that no more steps are to come, where their number was not known."""
        self._batches.plan(None)
        self._judged = None  # by rules that ask for the number of steps, not yet

    def traced(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which the model is traced once, as `traced_once` does it, for the whole training."""
        return traced_once(self._traces)

    def begin_another(self) -> None:
        """Leaves out the reports so far, which are of another model."""
        self._reports, self._known, self._finite = KeptReports(self._reports.keep), set(), True
        self._batches = RunBatches()

    def read_batch(self, batch: Any) -> None:
        """Reads labels and inputs of one of the first measured batches."""
        self._batches.read(batch)

    def add(self, report: SignalReport) -> bool:
        """Adds the next report; returns whether it is due for a diagnosis."""
        self._reports.add(report)
        broke = self._finite and report.first_nonfinite is not None
        self._finite = self._finite and not broke
        return broke or _often(self._reports.added - 1)

    def new_findings(self, model: keras.Model) -> list[Finding]:
        """Returns the findings that were not known before. An error in a rule costs a warning, not the training."""
        reports = self._reports
        if self._broken or not reports or reports[-1] is self._judged:
            return []
        self._judged = reports[-1]
        try:
            with self.traced():
                if self._context is None or not self._context.kernels:  # it may not have been built then
                    self._context, self._task = ModelContext(model, **self._by_hand), None
                if self._task is None:
                    self._task = make_task(self._context)
                self._task = self._batches.complete(self._task)
                found = diagnose_reports(reports, self._context, self._task)
        except Exception as error:
            self._broken = True
            warnings.warn(
                f"{self._user}: the diagnosis failed ({type(error).__name__}: {error}); training and measuring "
                'go on without it. Pass on_finding="ignore" to turn it off.',
                stacklevel=2,
            )
            return []
        new = [finding for finding in found if (finding.kind, finding.layer) not in self._known]
        self._known |= {(finding.kind, finding.layer) for finding in new}
        return new


def report_findings(
    findings: Sequence[Finding], on_finding: OnFinding, bar: bool, user: str = "LayerStatsCallback"
) -> None:
    """Warns of new findings, or hands them to the user's function; a progress `bar` leaves its line unfinished."""
    if callable(on_finding):
        for finding in findings:
            on_finding(finding)
        return
    serious = Findings(finding for finding in findings if finding.severity != "info")
    if serious:
        text = str(serious)
        if bar:
            sys.stdout.write("\n")
            sys.stdout.flush()
        if on_finding == "stop" and any(finding.severity == "error" for finding in findings):
            stops = "Training stops here" if user == "LayerStatsCallback" else "`model.stop_training` is True now"
            text += f"\n{stops}, because on_finding is 'stop' and this is an error."
        # Without a place in some file: that, and its line of code, say nothing about the finding.
        warnings.warn_explicit(f"{user}: {text}", UserWarning, "keras_initkit", findings[0].step)
