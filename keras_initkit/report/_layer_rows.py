"""A report as one row for each call of a layer, which tables and figures show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from keras_initkit.report._data import ReportData
from keras_initkit.report._rows import TensorStats


class LayerRow(NamedTuple):
    """One call of a layer, or one of its outputs where it has several; `name` then has both numbers.

    `gradient` is that at the output; at the pre-activation where there is no other, as at a classifier's output layer,
    whose loss reads the logits.
    """

    name: str
    output: TensorStats | None
    pre_activation: TensorStats | None
    gradient: TensorStats | None

    @property
    def main(self) -> TensorStats:
        """The first tensor that was measured: it has the layer's type and shape."""
        return next(stats for stats in self[1:4] if stats is not None)


class Gap(NamedTuple):
    """Rows that a folded table leaves out."""

    rows: tuple[LayerRow, ...]


def read_layer_rows(report: ReportData) -> list[LayerRow]:
    """Returns the rows of a report, in its order."""
    found: dict[tuple, dict[str, TensorStats]] = {}
    for stats in report.rows:
        kind, layer, call, name = stats.tap
        if kind.removesuffix("_gradient") in ("output", "pre_activation"):
            found.setdefault((layer, call, name), {})[kind] = stats
    repeated = {layer for layer, call, _ in found if call}
    rows = []
    for (layer, call, name), by_kind in found.items():
        title = layer + f" (call {call})" * (layer in repeated) + f" [{name}]" * bool(name)
        gradient = by_kind.get("output_gradient") or by_kind.get("pre_activation_gradient")
        rows.append(LayerRow(title, by_kind.get("output"), by_kind.get("pre_activation"), gradient))
    return rows


def fold(rows: Sequence[LayerRow], limit: int = 30, ends: int = 5, between: int = 6) -> list[LayerRow | Gap]:
    """Keeps at most about `limit` rows: both ends, some evenly spread between them, and whatever stands out.

    What stands out: the first output and the first gradient (from the output back) that is not finite or 0, the
    largest and the smallest of each, the row farthest from its prediction, the most dead and saturated units.
    """
    if len(rows) <= limit:
        return list(rows)
    count = len(rows)
    kept = {*range(ends), *range(count - ends, count)}
    kept |= {round(i * (count - 1) / (between + 1)) for i in range(1, between + 1)} | _outstanding(rows)
    for i in range(1, count - 1):  # a gap of one row takes as much room as the row
        if i - 1 in kept and i + 1 in kept:
            kept.add(i)
    folded: list[LayerRow | Gap] = []
    for i, row in enumerate(rows):
        if i in kept:
            folded.append(row)
        elif folded and isinstance(folded[-1], Gap):
            folded[-1] = Gap((*folded[-1].rows, row))
        else:
            folded.append(Gap((row,)))
    return folded


def _outstanding(rows: Sequence[LayerRow]) -> set[int]:
    found = set()
    for field in ("output", "pre_activation", "gradient"):
        measured = {i: stats for i, row in enumerate(rows) if (stats := getattr(row, field)) is not None}
        order = sorted(measured, reverse=field == "gradient")
        deviations = {i: measured[i].moments.stddev for i in order}
        found |= set([i for i in order if measured[i].moments.nonfinite or not math.isfinite(deviations[i])][:1])
        found |= set([i for i in order if deviations[i] == 0][:1])
        finite = {i: d for i, d in deviations.items() if math.isfinite(d)}
        misses = {i: _miss(finite[i], measured[i].predicted_stddev) for i in finite}
        for values, choose in ((finite, min), (finite, max), (misses, max)):
            if values:
                found.add(choose(values, key=values.__getitem__))
        for name in ("dead_units", "saturated_units"):
            fractions = {i: getattr(stats, name) or 0.0 for i, stats in measured.items()}
            if any(fractions.values()):
                found.add(max(fractions, key=fractions.__getitem__))
    return found


def _miss(measured: float, predicted: float | None) -> float:
    """Returns how far a measured value lies from theory's, as a logarithm."""
    if predicted is None or measured == predicted:
        return 0.0
    return abs(math.log(measured / predicted)) if measured > 0 and 0 < predicted < math.inf else math.inf
