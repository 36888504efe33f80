"""What the tab "Layers" needs beside scalars: one small JSON text for each run, under the tab's own plugin name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.diagnosis import Finding
from keras_initkit.report._layer_rows import LayerRow, read_layer_rows
from keras_initkit.report._report import SignalReport
from keras_initkit.theory._thresholds import HEALTHY_FACTOR

PLUGIN = "keras_initkit_layers"  # as in keras_initkit_tensorboard/_series.py, which stands outside this package
TAG = "keras_initkit/layers"


def make_record(
    report: SignalReport, statistics: Sequence[str], findings: Sequence[Finding], measured: int
) -> dict[str, Any]:
    """Returns what is known of a run's layers, as plain dictionaries.

    Args:
        report: The first measured step.
        statistics: Names of the statistics that are logged.
        findings: All findings so far.
        measured: Integer. Number of steps that were measured.
    """
    types: dict[str, str] = {}
    for row in report.rows:
        types[row.tap.layer] = types.get(row.tap.layer) or row.layer_type
    rows = read_layer_rows(report)
    return {
        "version": 1,
        "statistics": list(statistics),
        "layers": [*types.items()],
        "healthy_factor": HEALTHY_FACTOR,
        "signal": {
            "forward": _entries([*types], [row.output for row in rows if row.reads_signal]),
            "backward": _entries([*types], [row.gradient for row in reversed(rows)]),
        },
        "findings": [finding.to_dict() for finding in findings],
        "measured": measured,
    }


def write_record(log: EventLog, step: int, record: Mapping[str, Any]) -> None:
    """Writes a record; the tab reads the last one of a run."""
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
    from tensorboard.util.tensor_util import make_tensor_proto

    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN), data_class=DATA_CLASS_TENSOR
    )
    summary = Summary()
    summary.value.add(tag=TAG, tensor=make_tensor_proto(json.dumps(record).encode()), metadata=metadata)
    log.summary(summary, step)


def _entries(layers, stats):  # placeholder until the one rule is here
    entry = next((each.tap.layer for each in stats if each is not None and each.moments.variance > 0), None)
    return [None if entry is None else [entry, 0.0] for _ in layers]
