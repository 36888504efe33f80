"""The log of one run: opened with its charts, and the tags of its histograms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keras_initkit.callbacks._event_log import EventLog, one_chart_each
from keras_initkit.report._report import SignalReport

# Tensors of which there are histograms, by the tag's prefix.
HISTOGRAMS = {
    "output": "activation",
    "output_gradient": "activation_gradient",
    "weight": "weight",
    "weight_gradient": "weight_gradient",
}


def histograms_of(report: SignalReport) -> dict[str, Any]:
    """Histograms by tag; tensors without a finite element have none."""
    return {
        f"{HISTOGRAMS[row.tap.kind]}/{row.tap.layer}": row.histogram
        for row in report.rows
        if row.tap.kind in HISTOGRAMS and row.histogram is not None
    }


def log_in(directory: str, statistics: Iterable[str]) -> EventLog:
    """A log with the charts of every statistic, or an error that says what to do."""
    try:
        log = EventLog(directory)
        log.summary(one_chart_each({name: name.replace("_", " ") for name in statistics}))
    except OSError as error:
        raise OSError(
            error.errno,
            f"LayerStatsCallback: cannot write the log to {directory} ({error.strerror or error}), expected a "
            "directory where files can be made, or a path where one can. Choose another `log_dir`, or "
            "`log_dir=None` to measure without a log.",
        ) from error
    return log
