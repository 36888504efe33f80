"""TensorBoard event files, written without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_initkit.callbacks._event_files import join, open_folder, read_records
from keras_initkit.callbacks._over_layers import NONFINITE
from keras_initkit.statistics._host import Histogram

CATEGORY = "All layers: the median, and a band from the smallest to the largest"
_SUFFIX = ".keras_initkit"


class EventLog:
    """An event file in a run's directory, which may be the URL of a store.

    Each write is one event, and it is on disk when the call returns: no thread writes it later, so an error reaches
    the caller, and a crash loses nothing that was measured before it. A local file is opened for each write (half a
    microsecond more); in a store, one file may become several. A write that fails leaves whole events behind.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder = open_folder(directory)
        self.directory = self._folder.path
        self._event, self._records = Event, RecordWriter
        self._names: list[str] = []
        self._charts: dict[str, str] = {}
        self._begin_file()

    @property
    def path(self) -> str:
        """Path or URL of the file that is written to."""
        return join(self.directory, self._names[-1])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of one step, by tag, as one event."""
        event = self._event(wall_time=time.time(), step=step)
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._write(event)

    def charts(self, step: int, charts: Mapping[str, str]) -> None:
        """Writes a layout for the custom scalars tab, if there are charts that the last one has not."""
        from tensorboard.plugins.custom_scalar import metadata  # not `summary`, which needs TensorFlow

        if not charts.keys() <= self._charts.keys():
            self._charts = {**self._charts, **charts}
            layout = np.array(make_chart_layout(self._charts).SerializeToString(), dtype=object)
            self._tensors(step, metadata.create_summary_metadata(), {metadata.CONFIG_SUMMARY_TAG: layout})

    def summary(self, summary: Any, step: int = 0) -> None:
        """Writes a `Summary` protobuf that a TensorBoard plugin made."""
        event = self._event(wall_time=time.time(), step=step)
        event.summary.ParseFromString(summary.SerializeToString())  # its class may be TensorFlow's own
        self._write(event)

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        """Writes counts and bin edges by tag as one event, for the histograms and the distributions tab."""
        from tensorboard.plugins.histogram import metadata

        buckets = {
            tag: np.stack([edges[:-1], edges[1:], counts], axis=1, dtype="float64")
            for tag, (counts, edges) in values.items()
        }
        self._tensors(step, metadata.create_summary_metadata("", ""), buckets)

    def image(self, step: int, tag: str, png: bytes) -> None:
        """Writes a PNG picture for the images tab."""
        from tensorboard.plugins.image import metadata

        size = [b"%d" % pixels for pixels in struct.unpack(">II", png[16:24])]  # where every PNG has it
        self._tensors(step, metadata.create_summary_metadata("", ""), {tag: np.array([*size, png], dtype=object)})

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Writes markdown for the text tab."""
        from tensorboard.plugins.text import metadata

        encoded = np.array(markdown.encode(), dtype=object)
        self._tensors(step, metadata.create_summary_metadata("", ""), {tag: encoded})

    def resumed_at(self, step: int) -> None:
        """Has readers drop what earlier files of the run hold from this step on."""
        event = self._event(wall_time=time.time(), step=step)
        event.session_log.status = event.session_log.START
        self._write(event)

    def finds_another_run(self) -> bool:
        """Returns whether an earlier file of this package in the directory holds the scalars of a step."""
        for name in sorted(self._folder.names()):
            if name.endswith(_SUFFIX) and name not in self._names:
                with self._folder.open(name) as file:
                    found = map(self._event.FromString, read_records(file))
                    if any(value.HasField("simple_value") for event in found for value in event.summary.value):
                        return True
        return False

    def is_latest(self) -> bool:
        """Returns whether the file is still there and readers, who go by name, come to no other after it."""
        names = [name for name in self._folder.names() if ".tfevents." in name]
        return bool(names) and max(names) == self._names[-1]

    def _tensors(self, step: int, metadata: Any, values: Mapping[str, np.ndarray]) -> None:
        """Writes tensors as one event, for the plugin that made this metadata."""
        from tensorboard.util.tensor_util import make_tensor_proto

        event = self._event(wall_time=time.time(), step=step)
        for tag, tensor in values.items():
            event.summary.value.add(tag=tag, tensor=make_tensor_proto(tensor), metadata=metadata)
        self._write(event)

    def _begin_file(self) -> None:
        self._names.append(self._new_file())
        try:
            self._append(self._event(wall_time=time.time(), file_version="brain.Event:2"))
        except OSError:
            with contextlib.suppress(OSError):
                self._folder.remove(self._names[-1])
            raise

    def _new_file(self) -> str:
        """Makes an empty file whose name sorts after the others', since readers go by name; returns its name."""
        second = int(time.time())
        while True:
            prefix = f"events.out.tfevents.{second}."
            if any(name.startswith(prefix) for name in self._folder.names()):
                second += 1
                continue
            name = f"{prefix}{socket.gethostname()}.{os.getpid()}{_SUFFIX}"
            try:
                self._folder.create(name)
            except FileExistsError:  # a process with the same number, in another container, came first
                continue
            return name

    def _write(self, event: Any) -> None:
        if self._folder.is_full():
            self._begin_file()
        self._append(event)

    def _append(self, event: Any) -> None:
        record = io.BytesIO()
        self._records(record).write(event.SerializeToString())
        self._folder.append(self._names[-1], record.getvalue())


def make_chart_layout(charts: Mapping[str, str]) -> Any:
    """Returns a layout with the charts of `find_charts`: the median over a band from smallest to largest."""
    from tensorboard.plugins.custom_scalar import layout_pb2

    made = []
    for tag, title in reversed(list(charts.items())):  # the tab shows charts with bands last to first
        if tag == NONFINITE:
            content = {"multiline": layout_pb2.MultilineChartContent(tag=[f"^{tag}$"])}
        else:
            series = layout_pb2.MarginChartContent.Series(value=f"{tag} median", lower=f"{tag} min", upper=f"{tag} max")
            content = {"margin": layout_pb2.MarginChartContent(series=[series])}
        made.append(layout_pb2.Chart(title=title, **content))
    return layout_pb2.Layout(category=[layout_pb2.Category(title=CATEGORY, chart=made)])
