"""A report as plain data and in files."""

from __future__ import annotations

import csv
import json
import math
import os
from typing import TYPE_CHECKING, Any

from keras_initkit._checks import required_package
from keras_initkit.report._attention_rows import AttentionStats, OrderStats, ResidualStats
from keras_initkit.report._data import ReportData
from keras_initkit.report._flow import LayerFlow
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._tap import KINDS, Tap

if TYPE_CHECKING:
    import pandas

FORMAT, VERSION = "keras_initkit signal report", 1
_NUMBERS = (
    *("saturated", "dead_units", "saturated_units", "effective_rank", "gradient_ratio"),
    *("float16_lost", "bfloat16_lost"),
)
_SECTIONS: dict[str, Any] = {
    "attention": AttentionStats,
    "residuals": ResidualStats,
    "order": OrderStats,
    "flow": LayerFlow,
}
COLUMNS = (
    *Tap._fields,
    *("layer_type", "shape"),
    *Moments().to_dict(),
    *("variance", "stddev", "zero_fraction"),
    *_NUMBERS,
    *("predicted_mean", "predicted_variance"),
)


def report_to_dict(report: ReportData) -> dict[str, Any]:
    """Returns the whole report as plain data."""
    return {
        "model": report.model,
        "step": report.step,
        "epoch": report.epoch,
        "notes": list(report.notes),
        "rows": [_row_to_dict(row) for row in report.rows],
        **{name: [row.to_dict() for row in rows] for name in _SECTIONS if (rows := getattr(report, name))},
        **({} if report.loss is None else {"loss": report.loss}),
        **({"references": list(map(_row_to_dict, report.references))} if report.references else {}),
    }


def _row_to_dict(row: TensorStats) -> dict[str, Any]:
    """Returns one row as plain data; `None` is what was not measured or does not apply."""
    moments, predicted = row.moments, row.predicted
    return {
        **row.tap._asdict(),
        "layer_type": row.layer_type,
        "shape": None if row.shape is None else list(row.shape),
        **moments.to_dict(),
        "variance": moments.variance,
        "stddev": moments.stddev,
        "zero_fraction": moments.zero_fraction,
        **{name: getattr(row, name) for name in _NUMBERS},
        "predicted_mean": None if predicted is None else predicted.mean,
        "predicted_variance": None if predicted is None else predicted.variance,
        "histogram": None if row.histogram is None else [list(part) for part in row.histogram],
    }


def write_csv(report: ReportData, path: str | os.PathLike[str]) -> None:
    """Writes a line for each tensor; a field is empty where something was not measured or does not apply."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(_table(report))


def make_dataframe(report: ReportData) -> pandas.DataFrame:
    """Returns the same table as a data frame."""
    frames = required_package("SignalReport.to_pandas", "pandas", "pandas")
    return frames.DataFrame(_table(report), columns=list(COLUMNS)).astype({"call": "Int64"})


def _table(report: ReportData) -> list[dict[str, Any]]:
    """Returns a row for each tensor, with its shape as text."""
    rows = [_row_to_dict(row) for row in report.rows]
    for row in rows:
        row["shape"] = None if row["shape"] is None else "x".join(map(str, row["shape"]))
        del row["histogram"]
    return rows


def write_json(report: ReportData, path: str | os.PathLike[str]) -> None:
    """Writes the whole report. What is `None` is left out, because `null` means NaN."""
    data = report_to_dict(report)
    rows = {
        name: [{key: value for key, value in row.items() if value is not None} for row in data.pop(name)]
        for name in ("references", "rows")
        if name in data
    }
    content = json_safe({"format": FORMAT, "version": VERSION, **data, **rows})
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, allow_nan=False)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the arguments of the report that `write_json` wrote; a ValueError says why a file holds none."""
    expected = "expected a file that SignalReport.to_json wrote"
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except ValueError as error:  # not JSON, or not even text
        raise ValueError(f"{os.fspath(path)!r} is not JSON ({error}); {expected}.") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"{os.fspath(path)!r} holds JSON, but no signal report; {expected}.")
    if data.get("version") != VERSION:
        raise ValueError(
            f"{os.fspath(path)!r} is a signal report of version {data.get('version')!r}, expected {VERSION}; "
            "read it with the version of keras-initkit that wrote it."
        )
    try:
        return {
            "rows": tuple(map(_row_from_dict, data["rows"])),
            "step": int(data["step"]),
            "epoch": int(data["epoch"]),
            "model": str(data["model"]),
            "notes": tuple(map(str, data["notes"])),
            **{name: tuple(map(row.from_dict, data.get(name, ()))) for name, row in _SECTIONS.items()},
            "references": tuple(map(_row_from_dict, data.get("references", ()))),
            "loss": _number(data["loss"]) if "loss" in data else None,
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise ValueError(f"{os.fspath(path)!r} is a damaged signal report ({detail}); {expected}.") from error


def _row_from_dict(row: dict[str, Any]) -> TensorStats:
    if row["kind"] not in KINDS:
        raise ValueError(f"kind {row['kind']!r}")
    moments = Moments(
        count=int(row["count"]),
        mean=_number(row["mean"]),
        m2=_number(row["m2"]),
        minimum=_number(row["minimum"]),
        maximum=_number(row["maximum"]),
        zeros=int(row["zeros"]),
        nonfinite=int(row["nonfinite"]),
    )
    arguments: dict[str, Any] = {name: _number(row[name]) for name in _NUMBERS if name in row}
    if "shape" in row:
        arguments["shape"] = tuple(row["shape"])
    if "predicted_mean" in row:
        arguments["predicted"] = Expected(_number(row["predicted_mean"]), _number(row["predicted_variance"]))
    if "histogram" in row:
        counts, edges = row["histogram"]
        arguments["histogram"] = (tuple(map(int, counts)), tuple(map(_number, edges)))
    tap = Tap(row["kind"], row["layer"], row.get("call"), row["name"])
    return TensorStats(tap, moments, row["layer_type"], **arguments)


def json_safe(value: Any) -> Any:
    """Returns plain data as JSON can hold it: NaN as `null`, the infinities as `"Infinity"` and `"-Infinity"`."""
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    return value


def _number(value: float | str | None) -> float:
    """Reads a number that `json_safe` wrote."""
    return math.nan if value is None else float(value)
