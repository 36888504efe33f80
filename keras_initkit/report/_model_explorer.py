"""A report as a graph for Google's Model Explorer.

The format is that of its public data classes: a collection of graphs, and node data for each graph.
https://github.com/google-ai-edge/model-explorer/wiki
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

from keras_initkit.report._data import ReportData
from keras_initkit.report._guessed_flow import guess_flow
from keras_initkit.report._health import layer_health, signal_decades
from keras_initkit.report._layer_rows import read_layer_rows
from keras_initkit.report._render_text import make_grid
from keras_initkit.theory._thresholds import HEALTHY_FACTOR

_UNHEALTHY = "#f4a582"
# ColorBrewer's RdBu, which color-blind readers can tell.
_COLORS = ("#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b")
_DARK = _COLORS[0], _COLORS[-1]


def write_model_explorer(report: ReportData, path: str | os.PathLike[str]) -> list[str]:
    """Writes the graph to `path`, and the decades forward and backward as node data beside it; returns the paths."""
    graph = make_graph(report)
    stem = os.path.splitext(os.fspath(path))[0]
    contents: dict[str, Any] = {os.fspath(path): {"label": report.model or "model", "graphs": [graph]}}
    for direction, decades in zip(("forward", "backward"), signal_decades(report), strict=True):
        contents[f"{stem}.{direction}.json"] = {graph["id"]: _node_data(direction, decades)}
    for each, content in contents.items():
        with open(each, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)
    return list(contents)


def make_graph(report: ReportData) -> dict[str, Any]:
    """Returns a node for each layer, within the composite layers that hold it, with the table's columns."""
    flows = report.flow or guess_flow(report)
    attributes, healthy = _attributes(report), layer_health(report)
    composites = {parent for flow in flows for parent in _parents(flow.layer)}
    nodes = []
    for flow in flows:
        if flow.layer in composites:
            continue
        parent, _, label = flow.layer.rpartition("/")
        edges = [
            {"sourceNodeId": source, "sourceNodeOutputId": "0", "targetNodeInputId": str(place)}
            for place, source in enumerate(path for path in flow.inputs if path not in composites)
        ]
        attrs = [{"key": key, "value": value} for key, value in attributes.get(flow.layer, {}).items()]
        node = {"id": flow.layer, "label": label, "namespace": parent, "attrs": attrs, "incomingEdges": edges}
        nodes.append(node if healthy.get(flow.layer, True) else {**node, "style": {"backgroundColor": _UNHEALTHY}})
    groups = {path: attributes[path] for path in sorted(composites) if path in attributes}
    return {"id": report.model or "model", "nodes": nodes, "groupNodeAttributes": groups}


def _parents(path: str) -> list[str]:
    return [path[:place] for place, letter in enumerate(path) if letter == "/"]


def _attributes(report: ReportData) -> dict[str, dict[str, str]]:
    """Returns the cells of each layer's row by their headings; those of further calls with the call's name."""
    grid, healthy = make_grid(report, folded=False), layer_health(report)
    found: dict[str, dict[str, str]] = {}
    for row, cells in zip(read_layer_rows(report), grid.rows, strict=True):
        layer = row.main.tap.layer
        suffix = row.name.removeprefix(layer)
        values = found.setdefault(layer, {"healthy": "yes" if healthy[layer] else "no"} if layer in healthy else {})
        before = ""
        for (above, below), cell in list(zip(grid.headings, cells, strict=True))[1:]:
            name = f"{before} {below}" if above == "theory" else f"{above} {below}".strip()
            name = f"{name} ({above})" if above == "theory" else name
            before = before if above == "theory" else above
            if cell.text:
                values[name + suffix] = cell.text
    return found


def _node_data(direction: str, decades: dict[str, float]) -> dict[str, Any]:
    limit = math.log10(HEALTHY_FACTOR)
    ends = (-limit, -limit / 2, limit / 2, limit, 1000.0)
    return {
        "name": f"{direction}: decades from where the signal enters",
        "results": {layer: {"value": round(value, 4)} for layer, value in decades.items() if math.isfinite(value)},
        "thresholds": [
            {"value": end, "bgColor": color, "textColor": "#ffffff" if color in _DARK else "#000000"}
            for end, color in zip(ends, _COLORS, strict=True)
        ],
        "hideInAggregatedStatsTable": True,  # sums of decades say nothing
        "hideInChildrenStatsTable": True,
    }
