"""`keras-initkit probe`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from keras_initkit.capture._probe import probe
from keras_initkit.cli._diagnose_command import measure_and_judge, print_findings
from keras_initkit.cli._model_files import load_inputs
from keras_initkit.cli._output import make_console, make_writable, waiting
from keras_initkit.report._io import report_to_json


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Measures a saved model, prints the report and writes the files; status 1 if `--diagnose` finds an error."""
    if options.out is not None:
        make_writable(options.out)
    model, x, y, notes = load_inputs(options)
    with waiting("measuring"):
        if options.diagnose:
            report, findings = measure_and_judge(model, x, y, options)
        else:
            report, findings = probe(model, x, y, batch_size=options.batch, seed=options.seed), None
    console = make_console()
    for note in notes:
        console.print(note)
    console.print(report)
    result: dict[str, Any] = {**report_to_json(report), "notes": [*notes, *report.notes], "files": []}
    if options.out is not None:
        paths = {end: os.path.join(options.out, f"signal_report.{end}") for end in ("csv", "json", "png")}
        report.to_csv(paths["csv"])
        report.to_json(paths["json"])
        report.plot().savefig(paths["png"], dpi=110)
        for path in paths.values():
            console.out(path, highlight=False)  # to be copied: neither wrapped nor read as markup
        result["files"] = list(paths.values())
    if findings is None:
        return 0, result
    console.print()
    return print_findings(findings, console), {**result, **findings.to_dict()}
