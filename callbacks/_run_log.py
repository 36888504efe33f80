"""The log of one run: how it is opened, and the tags of its histograms."""

from __future__ import annotations

from collections.abc import Iterable

from keras_initkit.callbacks._event_log import EventLog, make_chart_layout
from keras_initkit.report._report import SignalReport
from keras_initkit.statistics._host import Histogram

# Tensors that have histograms, with the prefix of their tags.
HISTOGRAMS = {
    "output": "activation",
    "output_gradient": "activation_gradient",
    "weight": "weight",
    "weight_gradient": "weight_gradient",
}


def collect_histograms(report: SignalReport) -> dict[str, Histogram]:
    """Returns histograms by tag; a tensor without a finite element has none."""
    return {
        f"{HISTOGRAMS[row.tap.kind]}/{row.tap.layer}": row.histogram
        for row in report.rows
        if row.tap.kind in HISTOGRAMS and row.histogram is not None
    }


def open_log(directory: str, statistics: Iterable[str]) -> EventLog:
    """Returns a log with a chart for every statistic."""
    try:
        log = EventLog(directory)
        log.summary(make_chart_layout({name: name.replace("_", " ") for name in statistics}))
    except OSError as error:
        raise OSError(
            error.errno,
            f"LayerStatsCallback: cannot write the log to {directory} ({error.strerror or error}), expected a "
            "directory where files can be made, or a path where one can. Choose another `log_dir`, or "
            "`log_dir=None` to measure without a log.",
        ) from error
    return log
