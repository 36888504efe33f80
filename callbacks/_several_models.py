"""What belongs to one of several models that are trained together."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace

import keras

from keras_initkit.callbacks._run_diagnosis import RunDiagnosis
from keras_initkit.capture._signal_flow import signal_flow
from keras_initkit.diagnosis import Finding
from keras_initkit.report._flow import LayerFlow
from keras_initkit.report._report import SignalReport


def read_flows(
    models: Mapping[str, keras.Model], diagnoses: Mapping[str, RunDiagnosis]
) -> dict[str, tuple[LayerFlow, ...]]:
    """Returns by model what each layer reads; nothing before all of them are built."""
    if not all(model.built for model in models.values()):
        return {}
    found = {}
    for prefix, model in models.items():
        with diagnoses[prefix].traced() if prefix in diagnoses else contextlib.nullcontext():
            found[prefix] = signal_flow(model, prefix, in_training=True)
    return found


def select_part(report: SignalReport, prefix: str) -> SignalReport:
    """Returns what a report holds of one of several models."""
    if not prefix:
        return report
    rows = [row for row in report.rows if row.tap.layer.startswith(prefix)]
    flows = [flow for flow in report.flow if flow.layer.startswith(prefix)]
    cut = len(prefix)
    return replace(
        report,
        rows=tuple(replace(row, tap=row.tap._replace(layer=row.tap.layer[cut:])) for row in rows),
        flow=tuple(
            replace(flow, layer=flow.layer[cut:], inputs=tuple(path[cut:] for path in flow.inputs)) for flow in flows
        ),
    )


def place_finding(finding: Finding, prefix: str) -> Finding:
    """Returns a finding whose layers are named as in the whole report."""
    caused_in = finding.caused_in and prefix + finding.caused_in
    return replace(finding, layer=prefix + finding.layer, caused_in=caused_in)
