"""What can be read of a run: reports, findings, its directory, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_initkit._checks import Layers
from keras_initkit._html import heading, view
from keras_initkit.callbacks._kept_reports import KeptReports
from keras_initkit.callbacks._run_record import RunRecord
from keras_initkit.diagnosis import Findings
from keras_initkit.diagnosis.task._task import Task
from keras_initkit.report._render_figures import draw_history
from keras_initkit.report._report import SignalReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class RunResults:
    """The results of who keeps a `RunRecord`."""

    _record: RunRecord

    @property
    def reports(self) -> KeptReports:
        """List of `SignalReport`, one for each measured step so far (at most `keep`), in order.

        `reports.to_pandas()` is a pandas data frame of their statistics.
        """
        return self._record.reports

    @property
    def findings(self) -> Findings:
        """Findings of `diagnose` so far, one for each kind and layer, in the order in which they appeared."""
        return self._record.findings

    @property
    def run_dir(self) -> str | None:
        """Directory of the run, below which `train` is; `None` before training, and without a log."""
        return self._record.directory

    @property
    def task(self) -> Task | None:
        """Heads, losses and labels, as the measured steps have shown them; `None` before the first diagnosis."""
        diagnosis = self._record.diagnoses.get("")
        return None if diagnosis is None else diagnosis.task

    def log_predictions(self, report: SignalReport) -> None:
        """Shows what theory predicts beside what is measured, in the profile of TensorBoard's tab Layers.

        Args:
            report: `SignalReport` of `probe`, made before training.

        Raises:
            ValueError: If it has no predictions.
        """
        if not isinstance(report, SignalReport) or all(row.predicted is None for row in report.rows):
            raise ValueError(
                f"report: got {report!r:.60}, expected a report of `probe` that holds predictions, such as "
                "`stats.log_predictions(keras_initkit.probe(model, x, y))`."
            )
        self._record.set_theory(report)

    def plot(
        self, *, layers: Layers = None, statistic: str | None = None, ax: Axes | Sequence[Axes] | None = None
    ) -> Figure:
        """Draws heat maps of the signal by layer and measured step, activations on the left, gradients on the right.

        White is healthy: a variance within 10,000x of where the signal enters at that step. Blue is less, red is more.

        Args:
            layers: String, compiled regular expression, or a list of them. Layers to draw: paths, names, patterns with
                `*`. `None` means all.
            statistic: String. Name of one of `STATISTICS` to draw instead, in one map.
            ax: Pair of Matplotlib axes to draw into instead of a new figure; one with `statistic`.

        Returns:
            A Matplotlib figure, which a notebook shows.

        Raises:
            ValueError: If no step was measured, a layer or the statistic is unknown, or `ax` is no axes.
        """
        if not self.reports:
            raise ValueError("plot: got a training without a measured step, expected one of which a step was measured.")
        return draw_history(self.reports, self._record.name, layers=layers, statistic=statistic, ax=ax)

    def __repr__(self) -> str:
        steps, findings = self.reports.added, len(self.findings)
        where = f", log in {self.run_dir}" if self.run_dir else ""
        return (
            f"<{type(self).__name__}: {steps} step{'s' * (steps != 1)} measured, {findings} "
            f"finding{'s' * (findings != 1)}{where}>"
        )

    def _repr_html_(self) -> str:
        last = self.reports[-1]._repr_html_() if self.reports else ""
        return view(heading(repr(self).strip("<>"))) + self.findings._repr_html_() + last
