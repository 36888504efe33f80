"""Where measurements are written: TensorBoard event files, without TensorFlow."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

_numbers = itertools.count()


class EventLog:
    """An event file in a run's directory.

    Each write is one event, on disk when the call returns: written at once, not by a thread, so an error
    reaches the caller and a crash loses nothing that was measured before it.

    Args:
        directory: the run's directory; made if missing.

    Raises:
        OSError: if the directory or the file cannot be made or written; the message names it.
    """

    def __init__(self, directory: str | os.PathLike):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.directory = os.fspath(directory)
        os.makedirs(self.directory, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path = os.path.join(self.directory, f"{name}.keras_initkit")
        self._event = Event
        self._file = open(self.path, "xb")  # noqa: SIM115 (closed by `close`)
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of one step, by tag, as one event."""
        event = self._event(wall_time=time.time(), step=step)
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._write(event)

    def summary(self, summary: Any, step: int = 0) -> None:
        """Writes a `Summary` protobuf that a TensorBoard plugin made."""
        event = self._event(wall_time=time.time(), step=step)
        event.summary.ParseFromString(summary.SerializeToString())  # its class may be TensorFlow's own
        self._write(event)

    def close(self) -> None:
        """Closes the file."""
        self._records.close()

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()


def one_chart_each(statistics: Mapping[str, str]) -> Any:
    """A custom-scalars layout with one chart for each statistic, a line for each layer.

    Args:
        statistics: title of each chart, by the tag's prefix before the slash.
    """
    from tensorboard.plugins.custom_scalar import layout_pb2, summary

    charts = [
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=[f"^{prefix}/.*"]))
        for prefix, title in statistics.items()
    ]
    return summary.pb(layout_pb2.Layout(category=[layout_pb2.Category(title="Layers", chart=charts)]))
