"""A report in files and as plain data."""

import csv
import dataclasses
import json
import math

import keras
import numpy as np
import pytest

from keras_initkit.capture._probe import probe
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats
from keras_initkit.statistics._expected import Expected


def report():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3)) / 3  # no short decimals: a float that is written short does not come back
    histogram = tuple(tuple(part.tolist()) for part in np.histogram(values, 5))
    full = TensorStats(
        tap=Tap("output", 'a, "b"\n層', 0),
        moments=Moments.of(values),
        layer_type="Dense",
        shape=(4, 3),
        saturated=0.1,
        dead_units=1 / 3,
        saturated_units=0.0,
        effective_rank=math.nan,
        gradient_ratio=math.inf,
        histogram=histogram,
        predicted=Expected(-0.1, math.inf),
    )
    overflowed = TensorStats(
        Tap("input_gradient", "c", 2, "1"), Moments(3, math.nan, math.nan, -math.inf, math.inf, 0, 2)
    )
    nothing = TensorStats(Tap("weight", "d", None, "kernel"), Moments())
    return SignalReport((full, overflowed, nothing), step=7, epoch=2, model="net", notes=("Infinity", "null"))


def same(first, second):
    """Equal to the last bit, NaN included: its repr is exact."""
    first, second = (each if isinstance(each, dict) else dataclasses.astuple(each) for each in (first, second))
    return repr(first) == repr(second)


@pytest.mark.filterwarnings("error")
def test_json_comes_back_exactly(tmp_path):
    report().to_json(tmp_path / "report.json")
    assert same(SignalReport.from_json(tmp_path / "report.json"), report())
    SignalReport(()).to_json(str(tmp_path / "empty.json"))
    assert SignalReport.from_json(str(tmp_path / "empty.json")) == SignalReport(())


def test_json_has_no_words_that_are_not_json(tmp_path):
    report().to_json(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    data = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    full, overflowed, nothing = data["rows"]
    assert (data["version"], data["model"], data["step"], data["epoch"]) == (1, "net", 7, 2)
    assert full["effective_rank"] is None
    assert (full["gradient_ratio"], full["predicted_variance"]) == ("Infinity", "Infinity")
    assert (overflowed["mean"], overflowed["minimum"]) == (None, "-Infinity")
    assert not {"call", "shape", "dead_units", "histogram", "predicted_mean"} & set(nothing)


def test_a_measured_report_comes_back(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, "tanh", name="a"), keras.layers.Dense(2, name="b")], name="measured"
    )
    measured = probe(model, np.random.default_rng(0).normal(size=(8, 4)))
    measured.to_json(tmp_path / "report.json")
    assert same(SignalReport.from_json(tmp_path / "report.json").to_dict(), measured.to_dict())
    again = SignalReport.from_json(tmp_path / "report.json")
    assert again == measured
    assert again.flow[1].inputs == ("a",)
    assert again.healthy == measured.healthy == {"a": True, "b": True}
    one = measured["a"]
    one.to_json(tmp_path / "one.json")
    assert SignalReport.from_json(tmp_path / "one.json") == one
    assert "tanh" not in str(measured)
    assert "Signal of measured: 2 layer calls" in str(measured)


def test_plain_data_against_numpy():
    values = np.random.default_rng(0).normal(size=(4, 3)) / 3
    data = report().to_dict()
    assert list(data) == ["model", "step", "epoch", "notes", "rows"]
    row = data["rows"][0]
    assert (row["kind"], row["layer"], row["call"], row["name"]) == ("output", 'a, "b"\n層', 0, "")
    assert row["variance"] == pytest.approx(values.var(), rel=1e-12)
    assert row["stddev"] == pytest.approx(values.std(), rel=1e-12)
    assert (row["count"], row["minimum"], row["maximum"]) == (12, values.min(), values.max())
    assert (row["predicted_mean"], row["shape"]) == (-0.1, [4, 3])
    assert data["rows"][2]["predicted_mean"] is None
    assert {tuple(row) for row in data["rows"]} == {tuple(row)}  # every row has every column


def test_csv_has_a_line_for_each_tensor(tmp_path):
    report().to_csv(tmp_path / "report.csv")
    with open(tmp_path / "report.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    expected = report().to_dict()["rows"]
    assert len(read) == 3
    assert set(read[0]) == set(expected[0]) - {"histogram"}
    for found, row in zip(read, expected, strict=True):
        for column, text in found.items():
            value = row[column]
            if column == "shape":
                assert text == ("" if value is None else "x".join(map(str, value)))
            elif value is None:
                assert text == ""
            elif isinstance(value, str):
                assert text == value
            else:
                assert repr(float(text)) == repr(float(value))
    SignalReport(()).to_csv(tmp_path / "empty.csv")
    assert (tmp_path / "empty.csv").read_text().startswith("kind,layer,call,name,layer_type,shape,count,mean")


WRONG = {
    "not json": (b"kind,layer\n", "is not JSON"),
    "not text": (b"\xff\xfe\x00\x81", "is not JSON"),
    "a list": (b"[1, 2]", "holds JSON, but no signal report"),
    "another file": (b'{"settings": {}, "rows": []}', "holds JSON, but no signal report"),
    "later": (b'{"format": "keras_initkit signal report", "version": 2}', "of version 2, expected 1"),
    "damaged": (b'{"format": "keras_initkit signal report", "version": 1, "rows": []}', "damaged.*KeyError: 'step'"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_is_no_report_is_refused(tmp_path, case):
    content, message = WRONG[case]
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"file\.json.*{message}"):
        SignalReport.from_json(path)


@pytest.mark.parametrize(("key", "value"), [("kind", "outputs"), ("count", "many"), ("histogram", [[1]]), ("shape", 3)])
def test_a_damaged_row_is_refused(tmp_path, key, value):
    report().to_json(tmp_path / "file.json")
    data = json.loads((tmp_path / "file.json").read_text(encoding="utf-8"))
    data["rows"][0][key] = value
    (tmp_path / "file.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="damaged signal report"):
        SignalReport.from_json(tmp_path / "file.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SignalReport.from_json(tmp_path / "nowhere.json")
