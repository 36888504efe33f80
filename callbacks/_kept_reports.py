"""The reports of a run, of which a bounded number is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from keras_initkit._checks import required_package
from keras_initkit.report._report import SignalReport
from keras_initkit.report._scalars import STATISTICS, check_statistics

if TYPE_CHECKING:
    import pandas


class KeptReports(list[SignalReport]):
    """Reports in order: evenly spread over those that were added, the first and the last always among them.

    When more than `keep` are there, every other one is dropped, and from then on one in two, in four, ... is kept: at
    least half of `keep` once so many have come, as far apart as possible.

    Args:
        keep: Integer. The most that are kept, 2 or more; `None` keeps all.

    >>> kept = KeptReports(4)
    >>> for step in range(20):
    ...     kept.add(SignalReport((), step))
    >>> [report.step for report in kept]
    [0, 8, 16, 19]
    """

    def __init__(
        self,
        keep: int | None = None,
        reports: Iterable[SignalReport] = (),
        statistics: Iterable[str] | None = None,
    ):
        super().__init__()
        self._statistics = statistics
        self.keep = keep
        self.added = 0  # how many reports have come
        self._stride = 1
        self._numbers: list[int] = []  # of those that are kept
        for report in reports:
            self.add(report)

    def __repr__(self) -> str:
        steps = f", steps {self[0].step} to {self[-1].step}" if self else ""
        return f"<{type(self).__name__}: {len(self)} report{'s' * (len(self) != 1)}{steps}>"

    def add(self, report: SignalReport) -> None:
        """Adds the next report."""
        if self and self._numbers[-1] % self._stride:  # it was there as the last
            del self[-1], self._numbers[-1]
        self.append(report)
        self._numbers.append(self.added)
        self.added += 1
        while self.keep is not None and len(self) > self.keep:
            self._stride *= 2
            places = [i for i, n in enumerate(self._numbers) if n % self._stride == 0 or n == self.added - 1]
            self[:], self._numbers = [self[i] for i in places], [self._numbers[i] for i in places]

    def to_pandas(self, statistics: Iterable[str] | None = None) -> pandas.DataFrame:
        """Returns a pandas data frame with a row for each report and layer: `step`, `epoch`, `layer`, the statistics.

        Args:
            statistics: Strings. Names of statistics, each a column; `None` means those that the run was asked for.
                What does not apply to a layer is NaN.

        Raises:
            ValueError: If a name is unknown.
            ImportError: If pandas is not installed.
        """
        frames = required_package("reports.to_pandas", "pandas", "pandas")
        names = check_statistics(statistics or self._statistics or STATISTICS)
        rows = []
        for report in self:
            by_name = {name: report.statistic(name) for name in names}
            for layer in report.layers:
                values = {name: layers[layer] for name, layers in by_name.items() if layer in layers}
                rows.append({"step": report.step, "epoch": report.epoch, "layer": layer, **values})
        measured = {name for row in rows for name in row}
        columns = [name for name in names if statistics is not None or name in measured]
        return frames.DataFrame(rows, columns=["step", "epoch", "layer", *columns])
