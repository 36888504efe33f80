"""What the tab "Layers" needs beside scalars: one small JSON text for each run, under the tab's own plugin name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.callbacks._kept_reports import KeptReports
from keras_initkit.diagnosis import Finding
from keras_initkit.report._health import Entry, signal_decades, signal_entries
from keras_initkit.report._report import SignalReport
from keras_initkit.theory._thresholds import HEALTHY_FACTOR

PLUGIN = "keras_initkit_layers"  # as in keras_initkit_tensorboard/_series.py, which stands outside this package
TAG = "keras_initkit/layers"
_PREDICTED = (("activation_variance", "output"), ("activation_gradient_variance", "output_gradient"))


def make_record(report: SignalReport, theory: SignalReport | None = None) -> dict[str, Any]:
    """Returns what is known of a run's layers, as plain lists and numbers.

    `signal` has, forward and backward, for each layer where its signal enters and the decades that are added to those
    between the variances; `None` for a layer that is not judged. `theory` has predicted variances by statistic.

    Args:
        report: The first measured step.
        theory: A report with predictions.
    """
    types: dict[str, str] = {}
    for row in report.rows:
        types[row.tap.layer] = types.get(row.tap.layer) or row.layer_type
    # Scalars of gradients are those at the outputs, logits left out.
    rows = tuple(row for row in report.rows if row.tap.kind != "pre_activation_gradient")
    logged = replace(report, rows=rows)
    forward, backward = signal_entries(logged)
    is_lost_on_purpose = len(signal_decades(logged)[1]) < len(backward)  # behind a kernel that begins as 0
    return {
        "version": 1,
        "layers": [*types.items()],
        "healthy_factor": HEALTHY_FACTOR,
        "signal": {"forward": _ways(types, forward), "backward": _ways(types, backward)},
        "zero_gradient_steps": [report.step] * is_lost_on_purpose,
        "theory": {} if theory is None else {name: _predicted(types, theory, kind) for name, kind in _PREDICTED},
    }


def write_record(
    reports: KeptReports,
    statistics: Sequence[str],
    findings: Sequence[Finding],
    theory: SignalReport | None,
    log: EventLog,
) -> None:
    """Writes what is known of a run so far; the tab reads the last record of a run.

    Args:
        reports: Reports of the run, at least one.
        statistics: Names of the statistics that are logged.
        findings: All findings so far.
        theory: A report with predictions.
        log: Where it is written.
    """
    record = {
        **make_record(reports[0], theory),
        "statistics": list(statistics),
        "findings": [finding.to_dict() for finding in findings],
        "measured": reports.added,
    }
    write_layers(log, reports[-1].step, record)


def write_layers(log: EventLog, step: int, record: Mapping[str, Any]) -> None:
    """Writes a record as text that no other tab shows."""
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
    from tensorboard.util.tensor_util import make_tensor_proto

    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN)
    summary = Summary()
    summary.value.add(
        tag=TAG,
        tensor=make_tensor_proto(json.dumps(record).encode()),
        metadata=SummaryMetadata(plugin_data=plugin, data_class=DATA_CLASS_TENSOR),
    )
    log.summary(summary, step)


def _ways(layers: Mapping[str, str], entries: Mapping[str, Entry]) -> list[tuple[str, float] | None]:
    return [(entries[layer].layer, math.log10(entries[layer].ratio)) if layer in entries else None for layer in layers]


def _predicted(layers: Mapping[str, str], report: SignalReport, kind: str) -> list[float | None]:
    found = {row.tap.layer: row.predicted.variance for row in report.rows if row.tap.kind == kind and row.predicted}
    return [value if math.isfinite(value := found.get(layer, math.nan)) else None for layer in layers]
