"""Rules that others have published, on the same reports: fixed thresholds on one statistic each.

As described by Amazon SageMaker Debugger's built-in rules, AUTOTRAINER (Zhang et al. 2021), DeepDiagnosis (Wardat et
al. 2022) and TheDeepChecker (Ben Braiek and Khomh 2023); where they read what a report does not hold, the nearest that
it does: a mean absolute value by the Gaussian's sqrt(2 / pi) standard deviations, shares beyond a value by histograms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from keras_initkit.report._rows import TensorStats
from keras_initkit.signal import SignalReport

Alarm = tuple[str, str, str]  # tool, kind as ours, layer


def alarms(before: SignalReport, reports: Sequence[SignalReport]) -> set[Alarm]:
    """What these rules say of a run, over all of its measured steps."""
    found = set(_of_probe(before))
    for report in reports:
        found.update(_of_step(report))
    return found


def _of_probe(report: SignalReport) -> Iterator[Alarm]:
    for row in report.rows:
        if row.tap.kind == "pre_activation" and row.histogram is not None:
            if _beyond(row, 5.0) > 0.5:
                yield "DeepDiagnosis", "saturated_units", row.tap.layer
            if _beyond(row, 9.5) > 0.5:
                yield "SageMaker", "saturated_units", row.tap.layer
        if row.tap.kind == "output" and not 0.5 <= row.moments.stddev <= 2.0:
            kind = "vanishing_activation" if row.moments.stddev < 0.5 else "exploding_activation"
            yield "TheDeepChecker", kind, row.tap.layer
        if row.tap.kind == "weight" and row.shape is not None and len(row.shape) > 1 and not _fits_a_scheme(row):
            yield "TheDeepChecker", "initializer_mismatch", row.tap.layer


def _of_step(report: SignalReport) -> Iterator[Alarm]:
    by_kind: dict[str, dict[str, TensorStats]] = {}
    for row in report.rows:
        by_kind.setdefault(row.tap.kind, {})[row.tap.layer] = row
    for layer, row in by_kind.get("output", {}).items():
        if row.layer_type == "Embedding":
            continue
        if (row.dead_units or 0.0) > 0.5:
            yield "SageMaker", "dead_units", layer
            yield "TheDeepChecker", "dead_units", layer
        if row.moments.zero_fraction >= 0.7:
            yield "DeepDiagnosis", "dead_units", layer
    gradients = by_kind.get("weight_gradient", {})
    for layer, row in gradients.items():
        if math.sqrt(2 / math.pi) * _rms(row) < 1e-7:
            yield "SageMaker", "vanishing_gradient", layer
        if row.moments.zero_fraction >= 0.7 and row.layer_type != "Embedding":
            yield "AUTOTRAINER", "dead_units", layer
    norms = [(layer, _rms(row) * math.sqrt(row.moments.count)) for layer, row in gradients.items()]
    if len(norms) > 1 and norms[-1][1] > 0:
        (first, norm), ratio = norms[0], norms[0][1] / norms[-1][1]
        if ratio < 1e-3 and norm < 1e-4:
            yield "AUTOTRAINER", "vanishing_gradient", first
        if ratio > 70:
            yield "AUTOTRAINER", "exploding_gradient", first
    for layer, row in by_kind.get("weight_update", {}).items():
        weight = by_kind.get("weight", {}).get(layer)
        if weight is None or not weight.moments.stddev > 0:
            continue
        ratio = row.moments.stddev / weight.moments.stddev
        for tool, low, high in (("SageMaker", 1e-8, 10.0), ("DeepDiagnosis", 1e-5, 0.1), ("TheDeepChecker", 1e-4, 0.1)):
            if not low <= ratio <= high:
                yield tool, "update_too_small" if ratio < low else "update_too_large", layer


def _rms(row: TensorStats) -> float:
    return math.sqrt(row.moments.variance + row.moments.mean**2)


def _beyond(row: TensorStats, limit: float) -> float:
    """Share of elements whose size is above a limit."""
    counts, edges = map(np.asarray, row.histogram)
    middles = (edges[1:] + edges[:-1]) / 2
    return float(counts[np.abs(middles) > limit].sum() / max(counts.sum(), 1))


def _fits_a_scheme(row: TensorStats) -> bool:
    """Whether an F-test at 5 % takes the variance for LeCun's, He's or Glorot's."""
    fan_in, fan_out = math.prod(row.shape[:-1]), math.prod(row.shape[:-2]) * row.shape[-1]
    count = row.moments.count - 1
    schemes = (1 / fan_in, 2 / fan_in, 2 / (fan_in + fan_out))
    tails = [stats.chi2.cdf(row.moments.m2 / variance, count) for variance in schemes]
    return any(0.025 <= tail <= 0.975 for tail in tails)
