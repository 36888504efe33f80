"""`keras-initkit verify`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from keras_initkit.callbacks import verify
from keras_initkit.cli._model_files import load_data, load_model
from keras_initkit.cli._output import make_console, waiting


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Compares a plain and a measured step of a saved model, and prints what it finds; status 1 if they differ."""
    with waiting("training two steps"):
        model = load_model(options.model)
        x, y = load_data(options.data, model, options.batch)
        result = verify(model, x, y, batch_size=options.batch)
    make_console().out(result, highlight=False)  # it holds paths to be copied
    return int(not result.equal), {"equal": result.equal, **asdict(result)}
