"""`keras-initkit repair`."""

from __future__ import annotations

import argparse
from typing import Any

import keras

from keras_initkit.cli._diagnose_command import print_findings, print_notes
from keras_initkit.cli._model_files import load_inputs, save_model
from keras_initkit.cli._output import make_console, waiting
from keras_initkit.diagnosis import Findings, diagnose, repair


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Repairs a saved model, prints what was done and writes the model; status 1 if an error is left."""
    model, x, y, notes = load_inputs(options)
    keras.utils.set_random_seed(options.seed)
    with waiting("diagnosing and repairing"):
        findings = Findings(diagnose(model, x, y))
        report = repair(model, findings, x, y)
        left = Findings(diagnose(model, x, y))
        save_model(model, options.output)
    console = make_console()
    done = [note.removeprefix("repair: ") for note in report.notes if note.startswith("repair: ")]
    notes += [note for note in report.notes if not note.startswith("repair: ")]
    print_notes(notes, console)
    for line in done:
        console.print(f"- {line}", markup=False, highlight=False)
    console.print("\nDiagnosed again:")
    status = print_findings(left, console)
    console.out(options.output, highlight=False)
    result = {"model": model.name, "notes": notes, "done": done, "output": options.output}
    return status, {**result, "before": findings.to_dict()["findings"], "after": left.to_dict()["findings"]}
