"""`keras-initkit compare`."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from typing import Any

from keras_initkit.cli._output import make_console, make_writable
from keras_initkit.comparison import compare
from keras_initkit.comparison._contestants import DEFAULT


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Runs the comparison, prints its table and writes its files."""
    log_dir = options.log_dir or os.path.join("logs", time.strftime("compare-%Y%m%d-%H%M%S"))
    make_writable(options.out)
    comparison = compare(
        DEFAULT if options.initializers is None else options.initializers,
        activation=options.activation,
        depth=options.depth,
        epochs=options.epochs,
        seeds=options.seeds,
        seed=options.seed,
        data=options.data,
        log_dir=log_dir,
    )
    files = comparison.save(options.out)
    console = make_console()
    console.print(comparison.table())
    for line in [*files, f"tensorboard --logdir {shlex.quote(log_dir)}"]:
        console.out(line, highlight=False)  # to be copied: neither wrapped nor read as markup
    return 0, {**comparison.to_dict(), "files": files, "log_dir": log_dir}
