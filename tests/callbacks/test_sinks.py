"""Sinks in real fits: what each of them holds afterwards, read by the tools of its own kind."""

import copy
import json
import math
import pathlib
import pickle
import random
import struct
import warnings

import keras
import numpy as np
import pytest
from helpers import mlp, read_events, run_python, together_tags
from tensorboard.util import tensor_util

from keras_initkit.callbacks import JSONLinesSink, LayerStatsCallback, MLflowSink, Sink, TensorBoardSink, WandbSink
from keras_initkit.diagnosis import Finding

pytestmark = pytest.mark.one_backend

X = np.random.default_rng(0).standard_normal((24, 6)).astype("float32")
Y = np.arange(24) % 3


class Recording:
    """A sink of a user's own, which knows nothing of this package."""

    def __init__(self, breaks_at=None):
        self.values, self.findings, self.breaks_at = {}, [], breaks_at

    def log(self, values, step):
        random.random(), np.random.rand()  # noqa: NPY002
        if step == self.breaks_at:
            raise ConnectionError("the server is gone")
        self.values[step] = values

    def alert(self, finding):
        self.findings.append(finding)


def broken_model():
    """All units of `a` are dead: there are findings."""
    keras.utils.set_random_seed(1)
    model = mlp(bias_initializer=keras.initializers.Constant(-100.0))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def fit(*sinks, log_dir=None, model=None, **options):
    """Returns the callback, and its warnings other than those of findings."""
    model = broken_model() if model is None else model
    callback = LayerStatsCallback(log_dir, "batch", sinks=sinks, **{"on_finding": lambda finding: None, **options})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[callback])
    return callback, [str(w.message) for w in caught if "LayerStatsCallback" in str(w.message)]


def expected(callback):
    """The scalars that are logged by default, by step."""
    return {report.step: report.scalars(callback.statistics) for report in callback.reports}


def test_any_object_with_two_methods_gets_all_figures_and_findings():
    first, second = Recording(), Recording()
    callback, said = fit(first, second)
    assert said == []
    assert isinstance(first, Sink)
    assert list(first.values) == [0, 1, 2]
    for sink in (first, second):
        np.testing.assert_equal(sink.values, expected(callback))
        assert sink.findings == list(callback.findings)
    assert "dead_units" in {finding.kind for finding in first.findings}
    assert first.values[0] is not second.values[0]  # what one does with them is not the other's


def test_without_a_diagnosis_there_are_no_findings():
    sink = Recording()
    fit(sink, on_finding="ignore")
    assert len(sink.values) == 3
    assert sink.findings == []


def test_an_error_costs_one_warning_and_that_sink(tmp_path):
    plain = broken_model()
    plain.fit(X, Y, batch_size=8, verbose=0)
    following = random.random(), np.random.rand()  # noqa: NPY002
    model, broken, whole = broken_model(), Recording(breaks_at=1), Recording()
    callback, (message,) = fit(broken, whole, log_dir=tmp_path, model=model)
    assert "the sink Recording raised ConnectionError: the server is gone. It gets nothing more" in message
    assert "training goes on" in message
    assert list(broken.values) == [0]
    assert list(whole.values) == [0, 1, 2]
    assert [event.step for event in read_events(tmp_path / "train").Scalars("dead_units/a")] == [0, 1, 2]
    np.testing.assert_equal(model.get_weights(), plain.get_weights())
    assert (random.random(), np.random.rand()) == following  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "LayerStatsCallback")  # no second warning
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[callback])
    assert list(broken.values) == [0]
    assert list(whole.values) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "sinks",
    [Recording(), "logs", 3, None, [print], [Recording], [Recording(), object()]],
    ids=["no-list", "name", "number", "none", "function", "class", "second"],
)
def test_anything_else_is_refused(sinks):
    with pytest.raises(ValueError, match=r"sinks: got .*, expected .* with the methods log\(values, step\) and alert"):
        LayerStatsCallback(None, sinks=sinks)


# TensorBoard


def test_tensorboard_reads_what_the_log_has(tmp_path):
    callback, _ = fit(TensorBoardSink(tmp_path / "sink"), log_dir=tmp_path / "log")
    log, sink = read_events(tmp_path / "log" / "train"), read_events(tmp_path / "sink")
    assert set(sink.Tags()["scalars"]) == set(log.Tags()["scalars"]) - together_tags()
    for tag in sink.Tags()["scalars"]:
        assert [e.value for e in sink.Scalars(tag)] == [e.value for e in log.Scalars(tag)]
    assert sink.Tags()["tensors"] == ["layers/findings"]
    texts = [tensor_util.make_ndarray(e.tensor_proto).item().decode() for e in sink.Tensors("layers/findings")]
    assert len(texts) == len(callback.findings)
    for text, finding in zip(texts, callback.findings, strict=True):
        assert text.startswith(f"#### {finding.severity}: {finding.kind} in `{finding.layer}`\n")
    assert len(list((tmp_path / "sink").iterdir())) == 1


@pytest.mark.parametrize("directory", [None, 3, "logs/{date}"])
def test_tensorboard_needs_a_directory(directory):
    with pytest.raises(ValueError, match=r"directory: got .*, expected"):
        TensorBoardSink(directory)


# JSON lines


def test_json_lines(tmp_path):
    callback, _ = fit(JSONLinesSink(tmp_path / "made" / "run.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "made" / "run.jsonl").read_text().splitlines()]
    assert {line["step"]: line["values"] for line in lines if "values" in line} == expected(callback)
    found = [line for line in lines if "finding" in line]
    assert [line["finding"] for line in found] == callback.findings.to_dict()["findings"]
    assert [line["step"] for line in found] == [finding.step for finding in callback.findings]
    assert {frozenset(line) for line in lines} == {frozenset({"step", "values"}), frozenset({"step", "finding"})}


def test_json_has_no_word_for_nan(tmp_path):
    sink = JSONLinesSink(tmp_path / "run.jsonl")
    sink.log({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1e-300}, 7)
    text = (tmp_path / "run.jsonl").read_text()
    assert text == '{"step": 7, "values": {"a": null, "b": "Infinity", "c": "-Infinity", "d": 1e-300}}\n'


def test_a_line_that_is_cut_short_is_left_out(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "run.jsonl"
    sink = JSONLinesSink(path)
    sink.log({"a": 1.0}, 0)
    before, whole = resource.getrlimit(resource.RLIMIT_FSIZE), path.read_text()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, before[1]))
    try:
        _, (message,) = fit(sink, on_finding="ignore")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the sink JSONLinesSink raised OSError: [Errno 27] File too large" in message
    assert path.read_text() == whole


def test_a_file_of_json_lines_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        JSONLinesSink(tmp_path / "file" / "run.jsonl")
    for path in (3, "s3://bucket/run.jsonl"):
        with pytest.raises(ValueError, match=r"path: got .*, expected a path of this machine"):
            JSONLinesSink(path)


# MLflow and Weights & Biases


@pytest.mark.parametrize(("sink", "package"), [(MLflowSink, "mlflow"), (WandbSink, "wandb")])
def test_a_package_that_is_missing(sink, package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=rf"{sink.__name__}: .*pip install 'keras-initkit\[{package}\]'"):
        sink()


def test_neither_is_loaded_before_it_is_used():
    run_python(
        "-c", "import sys, keras_initkit.callbacks\nassert not {'mlflow', 'wandb', 'fsspec.core'} & set(sys.modules)"
    )


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    module = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which needs no migration of tables
    before = module.get_tracking_uri()
    module.set_tracking_uri((tmp_path / "runs").as_uri())
    yield module
    module.set_tracking_uri(before)


def history(mlflow, run_id, metric):
    return {m.step: m.value for m in mlflow.MlflowClient().get_metric_history(run_id, metric)}


@pytest.mark.parametrize("store", ["files", "sqlite"])
def test_mlflow_holds_every_step_of_the_active_run(mlflow, tmp_path, store):
    if store == "sqlite":
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    with mlflow.start_run() as run:
        callback, said = fit(MLflowSink())
    assert said == []
    data = mlflow.MlflowClient().get_run(run.info.run_id).data
    assert set(data.metrics) == {tag for scalars in expected(callback).values() for tag in scalars}
    for tag in ("activation_variance/z", "dead_units/a"):
        assert history(mlflow, run.info.run_id, tag) == {s: v[tag] for s, v in expected(callback).items()}
    findings = {f"finding/{f.kind}/{f.layer}": str(f) for f in callback.findings}
    assert {name: value for name, value in data.tags.items() if name.startswith("finding/")} == findings


def test_mlflow_runs_of_its_own_are_not_active_and_end_with_the_sink(mlflow):
    sink, client = MLflowSink(), mlflow.MlflowClient()
    others = [copy.deepcopy(sink), pickle.loads(pickle.dumps(sink))]
    for number, each in enumerate([sink, *others]):
        each.log({"a/b": float(number)}, 5)
        each.log({"a/b": float(number)}, 6)
    copied = copy.copy(sink)
    copied.log({"a/b": 3.0}, 5)
    assert mlflow.active_run() is None
    runs = {run.data.metrics["a/b"]: run for run in client.search_runs(["0"])}
    assert set(runs) == {0.0, 1.0, 2.0, 3.0}
    assert {run.info.status for run in runs.values()} == {"RUNNING"}
    del sink
    assert client.get_run(runs[0.0].info.run_id).info.status == "FINISHED"
    with mlflow.start_run() as run:  # is not in the way
        MLflowSink(runs[1.0].info.run_id).log({"other": 1.0}, 0)
        others[0].log({"other": 2.0}, 0)
    assert client.get_run(runs[1.0].info.run_id).data.metrics == {"a/b": 1.0, "other": 1.0}
    assert client.get_run(run.info.run_id).data.metrics == {"other": 2.0}


def test_names_and_numbers_that_mlflow_refuses(mlflow):
    names = {f"weight_variance/{name}": float(i) for i, name in enumerate(["a>b", "a<b", "..", "größe 層", "x" * 300])}
    names |= {"m/a//b": math.nan, "m/a:b": math.inf} | {f"many/{i}": 1.0 for i in range(1500)}
    with mlflow.start_run() as run:
        sink = MLflowSink()
        sink.log(names, 0)
        sink.log(names, 1)
        finding = Finding("dead_units", "a>b", 3, "error", {"dead": 1.0}, "Re-initialize it. " * 1000)
        sink.alert(finding)
    data = mlflow.MlflowClient().get_run(run.info.run_id).data
    assert len(data.metrics) == len(names)
    assert data.metrics["weight_variance/a_b"] == 0.0
    assert data.metrics["weight_variance/a_b_2"] == 1.0
    assert data.metrics["weight_variance/_"] == 2.0
    assert data.metrics["weight_variance/größe 層"] == 3.0
    assert math.isnan(data.metrics["m/a/_/b"])
    assert data.metrics["m/a_b"] == math.inf
    assert str(finding).startswith(data.tags["finding/dead_units/a_b"])


def read_wandb(directory):
    """Returns the rows of the history and the alerts that a run has left on the disk.

    Its file is a log as LevelDB has it: blocks of 32 KiB, of chunks with checksum, length and a kind (1 whole, 2 the
    first of a record, 3 in between, 4 the last), after a header of 7 bytes.
    """
    from wandb.proto import wandb_internal_pb2

    (path,) = pathlib.Path(directory).glob("wandb/offline-run-*/*.wandb")
    data, place, records = path.read_bytes(), 7, [b""]
    while place + 7 < len(data):
        if place % 2**15 > 2**15 - 7:
            place += -place % 2**15
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        records[-1] += data[place + 7 : place + 7 + length]
        records += [b""] if kind in (1, 4) else []
        place += 7 + length
    rows, alerts = [], []
    for record in map(wandb_internal_pb2.Record.FromString, records):
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append((record.history.step.num, items))
        if record.HasField("alert"):
            alerts.append((record.alert.title, record.alert.text, record.alert.level))
    return rows, alerts


WANDB = """
    import json, sys
    from test_sinks import *
    import wandb

    sink = WandbSink(project="layers", mode="offline", dir=sys.argv[1])
    callback, said = fit(sink)
    assert said == [], said
    assert wandb.run is None
    findings = [[f"{f.kind} in {f.layer}", str(f), f.severity] for f in callback.findings]
    print(json.dumps([expected(callback), findings]))
"""

BESIDE = """
    import sys
    from test_sinks import *
    import wandb

    with wandb.init(mode="offline", dir=sys.argv[1]) as run:
        sink = WandbSink()
        run.log({"loss": 1.0}, step=4)
        sink.log({"a/b": math.nan}, 2)
        sink.log({"a/b": 3.0}, 9)
    with wandb.init(mode="offline", dir=sys.argv[1] + "/active"):
        with wandb.init(mode="offline", dir=sys.argv[1] + "/given", reinit="create_new") as given:
            WandbSink(given).log({"a/b": 5.0}, 0)
"""


def run_wandb(code, *arguments):
    pytest.importorskip("wandb")
    return run_python("-c", code, *arguments, environment={"WANDB_SILENT": "true"})


def test_wandb_holds_every_step_and_alert(tmp_path):
    """In a process that ends: wandb's own stays until then."""
    printed = run_wandb(WANDB, tmp_path).stdout.splitlines()[-1]
    values, findings = json.loads(printed)
    rows, alerts = read_wandb(tmp_path)
    read = {str(step): {key: v for key, v in items.items() if not key.startswith("_")} for step, items in rows}
    assert read == values
    levels = {"error": "ERROR", "warning": "WARN", "info": "INFO"}
    assert alerts == [(title, text, levels[severity]) for title, text, severity in findings]


def test_wandb_beside_what_else_logs_to_the_run(tmp_path):
    for name in ("given", "active"):
        (tmp_path / name).mkdir()
    run_wandb(BESIDE, tmp_path)
    rows, _ = read_wandb(tmp_path)
    own = [(step, {key: v for key, v in items.items() if not key.startswith("_")}) for step, items in rows]
    np.testing.assert_equal(own, [(4, {"loss": 1.0, "a/b": math.nan}), (9, {"a/b": 3.0})])
    assert read_wandb(tmp_path / "given")[0][0][1]["a/b"] == 5.0
    assert read_wandb(tmp_path / "active")[0] == []
