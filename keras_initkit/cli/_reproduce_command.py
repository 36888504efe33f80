"""`keras-initkit reproduce`."""

from __future__ import annotations

import argparse
import glob
import os
import shlex

from keras_initkit._checks import checked_count
from keras_initkit.cli._output import make_writable
from keras_initkit.examples import NAMES


def run(options: argparse.Namespace) -> int:
    """Runs an example, or all, and prints the paths of the written files; returns the exit status."""
    if options.name != "all" and options.name not in NAMES:
        raise ValueError(f"name: got {options.name!r}, expected all or one of {', '.join(NAMES)}.")
    checked_count("--seed", options.seed, 0, 2**31 - 1)
    make_writable(options.out)

    from rich.console import Console

    console = Console()
    with console.status("starting Keras"):
        from keras_initkit.examples import reproduce
    for name in NAMES if options.name == "all" else [options.name]:
        console.rule(name)
        reproduce(name, options.out, seed=options.seed, data=options.data)
        for path in sorted(glob.glob(os.path.join(glob.escape(options.out), f"{name}*.*"))):
            console.out(path, highlight=False)  # to be copied: neither wrapped nor read as markup
    logs = os.path.join(options.out, "logs")
    if os.path.isdir(logs):
        console.out(f"tensorboard --logdir {shlex.quote(logs)}", highlight=False)
    return 0
