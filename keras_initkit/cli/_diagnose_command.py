"""`keras-initkit diagnose`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import keras
from rich.console import Console

from keras_initkit.cli._model_files import load_inputs
from keras_initkit.cli._output import make_console, waiting
from keras_initkit.diagnosis import Findings, _judge
from keras_initkit.report._report import SignalReport


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Prints what is wrong with a saved model; status 1 if a finding is an error."""
    model, x, y, notes = load_inputs(options)
    with waiting("measuring"):
        report, findings = measure_and_judge(model, x, y, options)
    console = make_console()
    notes = [*notes, *report.notes]
    print_notes(notes, console)
    status = print_findings(findings, console)
    return status, {"model": model.name, "notes": notes, **findings.to_dict()}


def measure_and_judge(model: keras.Model, x: Any, y: Any, options: argparse.Namespace) -> tuple[SignalReport, Findings]:
    """Returns a probe of a model and its findings."""
    report, task = _judge.measure_task(model, x, y, batch_size=options.batch, seed=options.seed)
    return report, Findings(_judge.diagnose_reports((report,), task.model, task))


def print_notes(notes: Sequence[str], console: Console) -> None:
    """Prints notes on data and gradients; where theory predicts nothing is no matter of a diagnosis."""
    for note in notes:
        if not note.startswith("No prediction"):
            console.print(f"- {note}", markup=False, highlight=False)


def print_findings(findings: Findings, console: Console) -> int:
    """Prints the findings, the first to fix on top; returns 1 if one is an error, else 0."""
    console.out(findings, highlight=False)  # it holds code to be copied
    return int(any(finding.severity == "error" for finding in findings))
