"""Places beside the log that a run's figures and findings can go to: the protocol, TensorBoard, and JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from keras_initkit.callbacks import _summary
from keras_initkit.callbacks._event_files import append_to_file, url_protocol
from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.callbacks._run_directory import checked_log_dir, make_run_directory
from keras_initkit.diagnosis import Finding
from keras_initkit.report._io import json_safe


@runtime_checkable
class Sink(Protocol):
    """What `LayerStatsCallback(sinks=[...])` writes to: any object with these two methods.

    An error that one of them raises costs a warning and that sink; training and the other sinks go on.

    Example:

    >>> class Printing:
    ...     def log(self, values, step):
    ...         print(step, values["update_ratio/out"])
    ...     def alert(self, finding):
    ...         print(finding.summary)
    >>> isinstance(Printing(), Sink)
    True
    """

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Takes the statistics of a measured step.

        Args:
            values: Mapping of numbers, which may be NaN or infinite, by tag: `<statistic>/<layer>`.
            step: Integer. Number of training steps before the measured one.
        """

    def alert(self, finding: Finding) -> None:
        """Takes a finding of `diagnose`, when it first appears.

        Args:
            finding: `Finding`. Of every severity, `"info"` too.
        """


class TensorBoardSink:
    """Writes scalars to an event file, and findings as text, as `log_dir` does.

    Use `log_dir` for the log of a run: it also has charts, histograms, pictures and a summary. This sink is for a
    second place, or to wrap in a sink of your own that chooses among the tags.

    Args:
        directory: String or path of the directory, or URL, as `LayerStatsCallback` takes them; the file lies in it
            itself. It is made at the first write.

    Raises:
        ValueError: If `directory` is none of these.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        checked = checked_log_dir(directory, "directory")
        if checked is None:
            raise ValueError("directory: got None, expected a path. Leave the sink out to write nothing.")
        self.directory = checked
        self._events: EventLog | None = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Writes the values as one event."""
        self._log().scalars(step, values)

    def alert(self, finding: Finding) -> None:
        """Writes the finding to the text tab."""
        self._log().text(finding.step, _summary.FINDINGS, _summary.list_findings([finding]))

    def _log(self) -> EventLog:
        if self._events is None:
            self._events = EventLog(make_run_directory(self.directory))
        return self._events

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_events": None}


class JSONLinesSink:
    """Appends one JSON object a line to a file.

    A measured step is `{"step": 0, "values": {"update_ratio/out": 0.001, ...}}`, a finding
    `{"step": 0, "finding": {"kind": ..., "layer": ..., ...}}` with the fields of `Finding`. JSON has no word for NaN
    and infinity: they are `null`, `"Infinity"` and `"-Infinity"`. Lines are whole: one that does not fit on the disk
    is left out. Each is in the file when the call returns.

    Args:
        path: String or path of the file; made if missing, with its directory, `~` being your home.

    Raises:
        ValueError: If it is no path of this machine.
        OSError: If the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]):
        if not isinstance(path, str | os.PathLike) or url_protocol(os.fspath(path)):
            raise ValueError(
                f"path: got {path!r}, expected a path of this machine. Copy the file elsewhere afterwards."
            )
        self.path = os.path.abspath(os.path.expanduser(path))  # training may change the working directory
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        open(self.path, "ab").close()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Writes a line with the values."""
        self._write({"step": step, "values": dict(values)})

    def alert(self, finding: Finding) -> None:
        """Writes a line with the finding."""
        self._write({"step": finding.step, "finding": finding.to_dict()})

    def _write(self, line: dict[str, Any]) -> None:
        append_to_file(self.path, json.dumps(json_safe(line), allow_nan=False).encode() + b"\n")
