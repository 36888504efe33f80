"""The log of one run: how it is opened, what is written to it, and what happens when it cannot be written."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence

from keras_initkit._compat import describe_error
from keras_initkit._random_state import random_state_kept
from keras_initkit.callbacks import _summary
from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.callbacks._over_layers import find_charts, over_layers
from keras_initkit.callbacks._sinks import Sink
from keras_initkit.diagnosis import Finding
from keras_initkit.report._report import SignalReport
from keras_initkit.statistics._host import Histogram

# Tensors that have histograms, with the prefix of their tags.
HISTOGRAMS = {
    "output": "activation",
    "output_gradient": "activation_gradient",
    "weight": "weight",
    "weight_gradient": "weight_gradient",
}


class RunLog:
    """Writes what a training run measures: to an event log, if there is one, and to sinks.

    An error, such as a full disk or a statistic of the user's that raises, must not end a long training.

    Args:
        events: `EventLog`; `None` writes none.
        sinks: List of sinks, from which one that raises is removed.
        statistics: Names of the statistics that are logged.
        user: String. What warnings name.
    """

    def __init__(
        self,
        events: EventLog | None = None,
        sinks: list[Sink] | None = None,
        statistics: Sequence[str] = (),
        user: str = "LayerStatsCallback",
    ):
        self.events, self._sinks = events, [] if sinks is None else sinks
        self._user = user
        self._statistics = statistics
        self._left_out: set[str] = set()

    def write(self, write: Callable[[EventLog], None]) -> None:
        """Calls `write` with the log, if there still is one."""
        if self.events is None:
            return
        try:
            write(self.events)
        except OSError as error:
            path, self.events = self.events.path, None
            warnings.warn(
                f"{self._user}: cannot write to {path} ({error.strerror or error}); training goes on without the "
                "log. The measurements stay in `reports`.",
                stacklevel=3,
            )
        except Exception as error:  # of what makes a picture or a text
            problem = describe_error(error)
            if problem not in self._left_out:  # a picture is made again and again
                self._left_out.add(problem)
                warnings.warn(
                    f"{self._user}: a part of the log could not be made ({problem}); training goes on, and everything "
                    "else is logged.",
                    stacklevel=3,
                )

    def warn_of_another_run(self) -> None:
        """Warns if a run from step 0 goes where another one is."""

        def warn(log: EventLog) -> None:
            if log.finds_another_run():
                warnings.warn(
                    f"{self._user}: {log.directory} already holds a run, and this one starts at step 0 too: "
                    "TensorBoard draws both as one curve. Give each run a `log_dir` of its own.",
                    stacklevel=5,
                )

        self.write(warn)

    def write_scalars(self, report: SignalReport) -> None:
        """Writes the statistics of a step."""
        if self.events is not None or self._sinks:
            values = self._collect_scalars(report)
            self.write(lambda log: _write_step(log, report, values))
            self._hand_over(lambda sink: sink.log(dict(values), report.step))

    def write_findings(self, findings: Sequence[Finding]) -> None:
        """Writes findings that are new."""
        self.write(lambda log: log.text(findings[-1].step, _summary.FINDINGS, _summary.list_findings(findings)))
        for finding in findings:
            self._hand_over(functools.partial(_alert, finding))

    def _hand_over(self, hand_over: Callable[[Sink], object]) -> None:
        for sink in list(self._sinks):
            try:
                with random_state_kept():  # from which some draw the name of a run
                    hand_over(sink)
            except Exception as error:
                self._sinks.remove(sink)
                warnings.warn(
                    f"{self._user}: the sink {type(sink).__name__} raised {describe_error(error)}. It gets nothing "
                    "more; training goes on, and everything else is logged.",
                    stacklevel=4,
                )

    def _collect_scalars(self, report: SignalReport) -> dict[str, float]:
        try:
            return report.scalars(self._statistics)
        except Exception:  # of a statistic that the user registered: which one?
            values: dict[str, float] = {}
            for name in self._statistics:
                try:
                    values |= report.scalars([name])
                except Exception as error:
                    if name not in self._left_out:
                        self._left_out.add(name)
                        warnings.warn(
                            f"{self._user}: the statistic {name!r} raised {type(error).__name__}: {error}. It is "
                            "left out of the log where it raises; everything else is logged.",
                            stacklevel=4,
                        )
            return values


def collect_histograms(report: SignalReport) -> dict[str, Histogram]:
    """Returns histograms by tag; a tensor without a finite element has none."""
    return {
        f"{HISTOGRAMS[row.tap.kind]}/{row.tap.layer}": row.histogram
        for row in report.rows
        if row.tap.kind in HISTOGRAMS and row.histogram is not None
    }


def _alert(finding: Finding, sink: Sink) -> None:
    sink.alert(finding)


def _write_step(log: EventLog, report: SignalReport, values: Mapping[str, float]) -> None:
    together: dict[str, float] = {}
    try:
        together = over_layers(report, values)
        log.charts(report.step, find_charts(together))
    finally:  # nothing that was measured is lost
        log.scalars(report.step, {**values, **together})
