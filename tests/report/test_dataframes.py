"""Reports as data frames, against the file that `to_csv` writes and the scalars."""

import csv
import math
import sys

import numpy as np
import pytest

from keras_initkit.callbacks._kept_reports import KeptReports
from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats
from keras_initkit.statistics._expected import Expected

pandas = pytest.importorskip("pandas")
pytestmark = pytest.mark.one_backend


def report(step=0, epoch=0):
    rng = np.random.default_rng(step)
    row = TensorStats(
        *(Tap("output", 'a, "b"\n層', 0), Moments.of(rng.normal(size=(4, 3))), "Dense", (4, 3)),
        saturated=0.1,
        dead_units=1 / 3,
        gradient_ratio=math.inf,
        predicted=Expected(-0.1, 2.0),
    )
    weight = TensorStats(Tap("weight", "d", None, "kernel"), Moments.of(rng.normal(size=(3, 2))), shape=(3, 2))
    update = TensorStats(Tap("weight_update", "d", None, "kernel"), Moments.of(rng.normal(size=(3, 2))), shape=(3, 2))
    return SignalReport((row, weight, update), step, epoch)


def test_a_report_against_its_file(tmp_path):
    report().to_csv(tmp_path / "report.csv")
    with open(tmp_path / "report.csv", newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    frame = report().to_pandas()
    assert list(frame.columns) == header
    assert len(frame) == len(lines) == 3
    for line, (_, row) in zip(lines, frame.iterrows(), strict=True):
        for text, value in zip(line, row, strict=True):
            if pandas.isna(value):
                assert text in ("", "nan")
            else:
                assert text == str(value)
    assert frame["call"].tolist() == [0, pandas.NA, pandas.NA]
    assert frame["shape"].tolist() == ["4x3", "3x2", "3x2"]
    assert frame["variance"].dtype == np.float64


def test_reports_against_their_scalars():
    reports = KeptReports(None, [report(0), report(10, 1)])
    frame = reports.to_pandas()
    assert list(frame.columns[:3]) == ["step", "epoch", "layer"]
    assert frame[["step", "epoch"]].values.tolist() == [[0, 0], [0, 0], [10, 1], [10, 1]]
    assert frame["layer"].tolist() == ['a, "b"\n層', "d"] * 2
    found = {
        (step, f"{name}/{layer}"): value
        for name in frame.columns[3:]
        for step, layer, value in zip(frame["step"], frame["layer"], frame[name], strict=True)
        if not math.isnan(value)
    }
    assert found == {(each.step, tag): value for each in reports for tag, value in each.scalars().items()}
    assert "saturated_units" not in frame.columns  # no layer has it


def test_chosen_statistics():
    frame = KeptReports(None, [report()]).to_pandas(["update_ratio", "saturated_units"])
    assert list(frame.columns) == ["step", "epoch", "layer", "saturated_units", "update_ratio"]
    assert frame["saturated_units"].isna().all()
    with pytest.raises(ValueError, match="statistics: got 'loss'"):
        KeptReports().to_pandas(["loss"])


def test_nothing_measured():
    assert list(KeptReports().to_pandas().columns) == ["step", "epoch", "layer"]
    assert len(SignalReport(()).to_pandas()) == 0


def test_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for convert in (report().to_pandas, KeptReports().to_pandas):
        with pytest.raises(ImportError, match=r"to_pandas: got no package 'pandas' .*'keras-initkit\[pandas\]'"):
            convert()
