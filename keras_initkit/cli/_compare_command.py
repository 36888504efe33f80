"""`keras-initkit compare`."""

from __future__ import annotations

import argparse
import os
import shlex
import time

from keras_initkit.cli._output import make_writable


def run(options: argparse.Namespace) -> int:
    """Runs the comparison, prints its table and writes its files; returns the exit status."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with console.status("starting Keras"):
        from keras_initkit.comparison import compare
        from keras_initkit.comparison._contestants import DEFAULT
    log_dir = options.log_dir or os.path.join("logs", time.strftime("compare-%Y%m%d-%H%M%S"))
    make_writable(options.out)
    with Progress(console=console) as bar:
        task = bar.add_task("tracing the model", total=1.0)
        comparison = compare(
            DEFAULT if options.initializers is None else options.initializers,
            activation=options.activation,
            depth=options.depth,
            epochs=options.epochs,
            seeds=options.seeds,
            seed=options.seed,
            data=options.data,
            log_dir=log_dir,
            progress=lambda title, done: bar.update(task, description=title, completed=done),
        )
    console.print(comparison.table())
    for path in comparison.save(options.out):
        console.out(path, highlight=False)  # to be copied: neither wrapped nor read as markup
    console.out(f"tensorboard --logdir {shlex.quote(log_dir)}", highlight=False)
    return 0
