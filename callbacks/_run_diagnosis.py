"""What `diagnose` finds while a model trains."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_initkit.callbacks._schedule import logarithmic
from keras_initkit.diagnosis import Finding
from keras_initkit.diagnosis._diagnose import findings_of
from keras_initkit.diagnosis._model_context import ModelContext
from keras_initkit.report._report import SignalReport

_often = logarithmic(10)


class RunDiagnosis:
    """Diagnoses a run as it goes on; each kind of finding once for each layer.

    A diagnosis costs about half a millisecond for each layer, so it is not made of every measured step: of the
    first ten, then of ten a decade, of each in which a value stops to be finite, and of the last.

    Attributes:
        findings: all so far, in the order in which they came up.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._known: set[tuple[str, str]] = set()
        self._judged: SignalReport | None = None
        self._finite = True
        self._broken = False
        self._structure: ModelContext | None = None  # of the model, as long as it stays the same
        self._skipped = 0  # reports of other models

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_structure": None}

    def begin(self) -> None:
        """Training begins; the model may have got other layers."""
        self._structure = None

    def begin_another(self, reports: Sequence[SignalReport]) -> None:
        """Training of another model than before begins: the reports so far say nothing of it."""
        self._skipped, self._known, self._finite = len(reports), set(), True

    def is_due(self, reports: Sequence[SignalReport]) -> bool:
        """Whether the last of the reports is to be judged."""
        broke = self._finite and reports[-1].first_nonfinite is not None
        self._finite = self._finite and not broke
        return broke or _often(len(reports) - self._skipped - 1)

    def new_findings(self, reports: Sequence[SignalReport], model: keras.Model) -> list[Finding]:
        """What the reports show that was not known before. An error in a rule costs a warning, not the training."""
        if self._broken or not reports or reports[-1] is self._judged:
            return []
        self._judged = reports[-1]
        try:
            if self._structure is None or not self._structure.kernels:  # it may not have been built then
                self._structure = ModelContext(model)
            found = findings_of(reports[self._skipped :], self._structure)
        except Exception as error:
            self._broken = True
            warnings.warn(
                f"LayerStatsCallback: the diagnosis failed ({type(error).__name__}: {error}); training and measuring "
                'go on without it. Pass on_finding="ignore" to do without.',
                stacklevel=2,
            )
            return []
        new = [finding for finding in found if (finding.kind, finding.layer) not in self._known]
        self._known |= {(finding.kind, finding.layer) for finding in new}
        self.findings += new
        return new


def tell(findings: Sequence[Finding], on_finding: str | Callable[[Finding], Any], bar: bool) -> None:
    """Tells the user, or the user's function, of new findings.

    Args:
        findings: what came up at one step, causes first.
        on_finding: see `LayerStatsCallback`.
        bar: whether Keras shows a progress bar, which leaves the cursor at the end of its line.
    """
    if callable(on_finding):
        for finding in findings:
            on_finding(finding)
        return
    text = told(findings)
    if text:
        if bar:
            sys.stdout.write("\n")
            sys.stdout.flush()
        if on_finding == "stop" and any(finding.severity == "error" for finding in findings):
            text += "\nTraining stops here, as on_finding='stop' asks for at an error."
        # Without a place in some file: that, and its line of code, say nothing about the finding.
        warnings.warn_explicit(f"LayerStatsCallback: {text}", UserWarning, "keras_initkit", findings[0].step)


def told(findings: Sequence[Finding]) -> str:
    """Causes in full; what follows from them, and will go away with them, by name."""
    grave = [finding for finding in findings if finding.severity != "info"]
    causes = [str(finding) for finding in grave if not finding.consequence_of]
    follow: dict[str, list[str]] = {}
    for finding in grave:
        if finding.consequence_of:
            title = f"{finding.kind} (follows from {finding.consequence_of})"
            follow.setdefault(title, []).append(finding.layer)
    lines = [f"{title} in {', '.join(_few(layers))}" for title, layers in follow.items()]
    return "\n".join([*causes, *lines])


def _few(names: Sequence[str], number: int = 5) -> list[str]:
    return [*names[:number], *([f"{len(names) - number} more"] if len(names) > number else [])]
