"""The pictures of a run: in its log, at the end of epochs and of the training, and in a notebook."""

from __future__ import annotations

import functools

from keras_initkit.callbacks import _summary
from keras_initkit.callbacks._kept_reports import KeptReports
from keras_initkit.callbacks._live_picture import LivePicture
from keras_initkit.callbacks._pacing import Deferred, Pacer
from keras_initkit.callbacks._run_log import RunLog
from keras_initkit.diagnosis import Finding
from keras_initkit.report._report import SignalReport


class RunPictures:
    """Draws a run's heat map where it is wanted.

    Args:
        display: String. What warnings of a picture in a notebook name; `None` shows none there.
    """

    def __init__(self, display: str | None) -> None:
        self._live = None if display is None else LivePicture(display)
        self._pacer, self._deferred = Pacer(), Deferred()
        self._drawn: SignalReport | None = None  # with which the last picture in the log ends

    def begin(self) -> None:
        """Notes that a training begins."""
        if self._live is not None:
            self._live.begin()

    def show(self, reports: KeptReports, name: str, at_once: bool = False) -> None:
        """Shows the picture in the notebook, if it is wanted there, and unless it was shown lately."""
        if self._live is not None and reports:
            self._live.show(functools.partial(_summary.draw_picture, reports, name), at_once)

    def draw(self, log: RunLog, reports: KeptReports, name: str) -> None:
        """Writes the picture to the log, unless that was done lately or it is there."""
        is_new = reports and log.events is not None and reports[-1] is not self._drawn
        if is_new and self._pacer.run(functools.partial(_write_picture, log, reports, name)):
            self._drawn = reports[-1]

    def end(self, log: RunLog, reports: KeptReports, name: str, findings: list[Finding] | None) -> None:
        """Writes picture and summary, now or where that was done lately later; `None` as findings: not diagnosed."""
        if reports and log.events is not None:
            is_drawn = reports[-1] is self._drawn
            self._deferred.run(functools.partial(_write_end, log, reports, name, findings, is_drawn))


def _write_end(log: RunLog, reports: KeptReports, name: str, findings: list[Finding] | None, is_drawn: bool) -> None:
    step, text = reports[-1].step, _summary.summarize
    log.write(lambda events: events.text(step, _summary.TEXT, text(reports, name, findings, reports.added)))
    if not is_drawn:
        _write_picture(log, reports, name)


def _write_picture(log: RunLog, reports: KeptReports, name: str) -> None:
    step = reports[-1].step
    log.write(lambda events: events.image(step, _summary.PICTURE, _summary.draw_picture(reports, name)))
