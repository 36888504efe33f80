"""Reports and findings of one of several models that are trained together."""

from __future__ import annotations

from dataclasses import replace

from keras_initkit.diagnosis import Finding
from keras_initkit.report._report import SignalReport


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
