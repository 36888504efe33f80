"""`keras-initkit verify`."""

from __future__ import annotations

import argparse
import os

from keras_initkit._checks import checked_count
from keras_initkit.cli._probe_command import load_data, load_model


def run(options: argparse.Namespace) -> int:
    """Compares a plain and a measured step of a saved model, and prints what it finds; returns 1 if they differ."""
    from rich.console import Console

    checked_count("--batch", options.batch)
    for path in (options.model, options.data):
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path!r} does not exist or is not a file; give the path of an existing file.")
    console = Console()
    with console.status("starting Keras"):
        from keras_initkit.callbacks import verify
    model = load_model(options.model)
    x, y = load_data(options.data, model, options.batch)
    with console.status("training two steps"):
        result = verify(model, x, y, batch_size=options.batch)
    console.out(result, highlight=False)  # it holds paths to be copied
    return int(not result.equal)
