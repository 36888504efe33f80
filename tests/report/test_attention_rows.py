"""Rows of attention in files."""

import json
import math

from keras_initkit.report._attention_rows import AttentionStats, OrderStats, ResidualStats
from keras_initkit.signal import SignalReport


def make_report():
    row = AttentionStats("a", 1, 4, 5, (0.5, 1.0), 1.5, (math.inf, 2.0), padding=0.25, queries_from=("x",))
    residual = ResidualStats("add", 0, "a/out", 0.1, 0.5)
    return SignalReport((), attention=(row,), residuals=(residual,), order=(OrderStats("x", 0.5, next_tokens=True),))


def test_files_hold_them(tmp_path):
    report = make_report()
    report.to_json(tmp_path / "report.json")
    assert SignalReport.from_json(tmp_path / "report.json") == report
    assert report.to_dict()["attention"][0]["largest_logit"] == [math.inf, 2.0]
    assert "future" not in report.to_dict()["attention"][0]


def test_what_is_not_known_stays_so(tmp_path):
    row = AttentionStats("a", 0, 1, 1, (math.nan,), math.nan, (0.0,))
    SignalReport((), attention=(row,)).to_json(tmp_path / "report.json")
    (read,) = SignalReport.from_json(tmp_path / "report.json").attention
    assert math.isnan(read.entropy[0])
    assert math.isnan(read.uniform_entropy)
    assert read.padding is None


def test_older_and_newer_files_are_read(tmp_path):
    path = tmp_path / "report.json"
    make_report().to_json(path)
    data = json.loads(path.read_text())
    data["order"][0]["added_later"] = 3
    del data["attention"], data["residuals"]
    path.write_text(json.dumps(data))
    read = SignalReport.from_json(path)
    assert read.attention == read.residuals == ()
    assert read.order[0].next_tokens is True
