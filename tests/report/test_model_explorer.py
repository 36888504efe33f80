"""The graph for Model Explorer, read back by the schema of its data classes."""

import json
import math
import pathlib

import keras
import numpy as np
import pytest

from keras_initkit.capture._probe import probe
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats

# Fields of the data classes in `model_explorer.graph_builder` and `node_data_builder` (0.1.34): name -> type, required.
NODE = {
    "id": (str, True),
    "label": (str, True),
    "namespace": (str, False),
    "subgraphIds": (list, False),
    "attrs": (list, False),
    "incomingEdges": (list, False),
    "outputsMetadata": (list, False),
    "inputsMetadata": (list, False),
    "style": (dict, False),
    "config": (dict, False),
}
EDGE = {"sourceNodeId": (str, True), "sourceNodeOutputId": (str, False), "targetNodeInputId": (str, False)}
ATTRIBUTE = {"key": (str, True), "value": (str, True)}
GRAPH = {"id": (str, True), "nodes": (list, False), "groupNodeAttributes": (dict, False)}
NODE_DATA = {
    "results": (dict, True),
    "name": (str, False),
    "thresholds": (list, False),
    "gradient": (list, False),
    "hideInAggregatedStatsTable": (bool, False),
    "hideInChildrenStatsTable": (bool, False),
}
THRESHOLD = {"value": (float, True), "bgColor": (str, True), "textColor": (str, False)}


def check(value, fields):
    assert set(value) <= set(fields)
    assert {name for name, (_, required) in fields.items() if required} <= set(value)
    assert all(isinstance(each, fields[name][0]) for name, each in value.items())


def read(report, tmp_path):
    paths = report.to_model_explorer(tmp_path / "model.json")
    assert [path.rpartition("/")[2] for path in paths] == ["model.json", "model.forward.json", "model.backward.json"]
    collection, *data = (json.loads(pathlib.Path(path).read_text(encoding="utf-8")) for path in paths)
    check(collection, {"label": (str, True), "graphs": (list, True)})
    (graph,) = collection["graphs"]
    check(graph, GRAPH)
    ids = [node["id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids)
    for node in graph["nodes"]:
        check(node, NODE)
        for edge in node["incomingEdges"]:
            check(edge, EDGE)
            assert edge["sourceNodeId"] in ids
        for attribute in node["attrs"]:
            check(attribute, ATTRIBUTE)
    for each in data:
        ((name, values),) = each.items()
        assert name == graph["id"]
        check(values, NODE_DATA)
        assert set(values["results"]) <= set(report.layers)
        for threshold in values["thresholds"]:
            check(threshold, THRESHOLD)
        ends = [threshold["value"] for threshold in values["thresholds"]]
        assert ends == sorted(ends)
        assert all(math.isfinite(result["value"]) for result in values["results"].values())
    return graph, [each[graph["id"]]["results"] for each in data]


@pytest.mark.one_backend
def test_a_measured_model(tmp_path):
    x = inputs = keras.Input((8,))
    x = keras.layers.Dense(8, name="stem")(x)
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="up")], name="inner")
    x = keras.layers.Add(name="sum")([x, inner(x)])
    small = keras.initializers.RandomNormal(stddev=1e-5, seed=1)
    x = keras.layers.Dense(8, kernel_initializer=small, name="small")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x), name="net")
    report = probe(model, np.random.default_rng(0).normal(size=(16, 8)))
    graph, (forward, backward) = read(report, tmp_path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    edges = {name: {edge["sourceNodeId"] for edge in node["incomingEdges"]} for name, node in nodes.items()}
    assert edges == {
        "stem": set(),
        "inner/up": {"stem"},
        "sum": {"stem", "inner/up"},
        "small": {"sum"},
        "head": {"small"},
    }
    assert (nodes["inner/up"]["namespace"], nodes["inner/up"]["label"]) == ("inner", "up")
    attributes = {attribute["key"]: attribute["value"] for attribute in nodes["small"]["attrs"]}
    assert (attributes["type"], attributes["healthy"], attributes["shape"]) == ("Dense", "no", "16x8")
    assert float(attributes["output sd"]) == pytest.approx(report["small"].rows[1].moments.stddev, rel=0.05)
    assert "style" in nodes["small"]
    assert "style" not in nodes["head"]
    assert forward["small"]["value"] < -8
    assert "head" in backward


def test_hostile_names_and_nothing_finite(tmp_path):
    name = '</script>"<b>'
    rows = [TensorStats(Tap("output", layer, 0), Moments.of((np.nan, 1.0)), "Dense", (2, 1)) for layer in (name, "b")]
    graph, (forward, _) = read(SignalReport(tuple(rows)), tmp_path)
    assert [node["label"] for node in graph["nodes"]] == ['script>"<b>', "b"]
    assert forward == {}
    assert read(SignalReport(()), tmp_path)[0]["nodes"] == []
