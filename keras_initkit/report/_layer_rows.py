"""A report as lines, one for each call of a layer, which tables and figures show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from keras_initkit.report._report import SignalReport
from keras_initkit.report._rows import TensorStats

HEALTHY_FACTOR = 10.0


class Line(NamedTuple):
    """One call of a layer; one output of it, where it has several.

    Args:
        name: the layer's path, with the call's number and the output's place where it has several.
        output, pre_activation: their rows.
        gradient: the row of the gradient at the output; at the pre-activation where there is no other, as at
            a classifier's output layer, whose loss reads the logits.
        reads: whether the layer reads a signal; an embedding reads whole numbers.
    """

    name: str
    output: TensorStats | None
    pre_activation: TensorStats | None
    gradient: TensorStats | None
    reads: bool = True

    @property
    def row(self) -> TensorStats:
        """The one that speaks for the layer."""
        return next(row for row in self[1:4] if row is not None)


class Gap(NamedTuple):
    """Lines that a folded table leaves out."""

    lines: tuple[Line, ...]


def lines_of(report: SignalReport) -> list[Line]:
    """The lines of a report, in its order."""
    found: dict[tuple, dict[str, TensorStats]] = {}
    for row in report.rows:
        kind, layer, call, name = row.tap
        if kind.removesuffix("_gradient") in ("output", "pre_activation"):
            found.setdefault((layer, call, name), {})[kind] = row
    readers = {row.tap.layer for row in report.rows if row.tap.kind == "input"}
    repeated = {layer for layer, call, _ in found if call}
    lines = []
    for (layer, call, name), rows in found.items():
        title = layer + f" (call {call})" * (layer in repeated and call is not None) + f" [{name}]" * bool(name)
        gradient = rows.get("output_gradient") or rows.get("pre_activation_gradient")
        reads = layer in readers or not readers  # a training step's report has no inputs
        lines.append(Line(title, rows.get("output"), rows.get("pre_activation"), gradient, reads))
    return lines


def stddev(row: TensorStats | None) -> float | None:
    """A row's standard deviation."""
    return None if row is None else row.moments.stddev


def predicted_stddev(row: TensorStats | None) -> float | None:
    """The standard deviation that theory expects."""
    if row is None or row.predicted is None:
        return None
    return math.sqrt(row.predicted.variance) if row.predicted.variance >= 0 else math.nan


def healthy_bands(lines: Sequence[Line]) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Variances within a factor of 10 of that where the signal enters.

    Forward it enters with the output of the first layer that reads one (an embedding makes it, on a scale that
    the next layers need not keep), backward with the gradient at the last layer's; where that is 0 or not
    finite, at the next one that is neither.

    Returns:
        Least and largest healthy variance, forward and backward; `None` where nothing was measured.
    """
    entries = ([line.output for line in lines if line.reads], [line.gradient for line in reversed(lines)])
    bands = []
    for rows in entries:
        variances = [row.moments.variance for row in rows if row is not None]
        entry = next((v for v in variances if v > 0 and math.isfinite(v)), None)
        bands.append(None if entry is None else (entry / HEALTHY_FACTOR, entry * HEALTHY_FACTOR))
    return bands[0], bands[1]


def fold(lines: Sequence[Line], limit: int = 30, ends: int = 5, between: int = 6) -> list[Line | Gap]:
    """At most about `limit` lines: both ends, some evenly spread between them, and whatever stands out.

    What stands out: the first output and the first gradient (from the output back) that is not finite or 0, the
    largest and the least of each, the line farthest from its prediction, the most dead and saturated units.
    """
    if len(lines) <= limit:
        return list(lines)
    count = len(lines)
    kept = {*range(ends), *range(count - ends, count)}
    kept |= {round(i * (count - 1) / (between + 1)) for i in range(1, between + 1)} | _outstanding(lines)
    for i in range(1, count - 1):  # a gap of one line takes as much room as the line
        if i - 1 in kept and i + 1 in kept:
            kept.add(i)
    folded: list[Line | Gap] = []
    for i, line in enumerate(lines):
        if i in kept:
            folded.append(line)
        elif folded and isinstance(folded[-1], Gap):
            folded[-1] = Gap((*folded[-1].lines, line))
        else:
            folded.append(Gap((line,)))
    return folded


def _outstanding(lines: Sequence[Line]) -> set[int]:
    found = set()
    signals: tuple[Callable[[Line], TensorStats | None], ...] = (
        lambda line: line.output,
        lambda line: line.pre_activation,
        lambda line: line.gradient,
    )
    for backward, row_of in zip((False, False, True), signals, strict=True):
        rows = {i: row for i, line in enumerate(lines) if (row := row_of(line)) is not None}
        order = sorted(rows, reverse=backward)
        deviations = {i: rows[i].moments.stddev for i in order}
        found |= set([i for i in order if rows[i].moments.nonfinite or not math.isfinite(deviations[i])][:1])
        found |= set([i for i in order if deviations[i] == 0][:1])
        finite = {i: d for i, d in deviations.items() if math.isfinite(d)}
        misses = {i: _miss(finite[i], predicted_stddev(rows[i])) for i in finite}
        for values, choose in ((finite, min), (finite, max), (misses, max)):
            if values:
                found.add(choose(values, key=values.__getitem__))
        for share in ("dead_units", "saturated_units"):
            shares = {i: getattr(row, share) or 0.0 for i, row in rows.items()}
            if any(shares.values()):
                found.add(max(shares, key=shares.__getitem__))
    return found


def _miss(measured: float, predicted: float | None) -> float:
    """How far a measured value lies from theory's, as a logarithm."""
    if predicted is None or measured == predicted:
        return 0.0
    return abs(math.log(measured / predicted)) if measured > 0 and 0 < predicted < math.inf else math.inf
