"""`keras-initkit initialize`."""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import Any

from keras_initkit.cli._model_files import load_inputs, save_model
from keras_initkit.cli._output import make_console, waiting
from keras_initkit.schemes import initialize

_TRAINED = ("gradinit", "metainit", "pretraining")  # show a progress bar themselves


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Initializes a saved model, prints what was done and writes the model."""
    given = dict(_read_option(text) for text in options.option or ())
    model, x, y, notes = load_inputs(options)
    with contextlib.nullcontext() if options.scheme in _TRAINED else waiting("initializing"):
        report = initialize(model, options.scheme, x, y, layers=options.layers, seed=options.seed, **given)
        save_model(model, options.output)
    console = make_console()
    for note in notes:
        console.print(note)
    console.print(report)
    console.out(options.output, highlight=False)
    result = report.to_dict()
    return 0, {**result, "notes": [*notes, *result["notes"]], "output": options.output}


def _read_option(text: str) -> tuple[str, Any]:
    """Returns an option and its value: a number, `true`, `false` or `null` as JSON has them, or else a string."""
    name, _, value = text.partition("=")
    if name in ("model", "scheme", "x", "y", "layers", "seed", "data"):
        raise ValueError(f"--option: got {name!r}, which has an argument of its own on the command line.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
