"""`keras-initkit reproduce`."""

from __future__ import annotations

import argparse
import glob
import os
import shlex
from typing import Any

from keras_initkit.cli._output import make_console, make_writable
from keras_initkit.examples import NAMES, reproduce


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Runs an example, or all, and prints tables and the paths of the written files."""
    make_writable(options.out)
    console = make_console()
    results: dict[str, Any] = {}
    for name in NAMES if options.name == "all" else [options.name]:
        console.rule(name)
        numbers = reproduce(name, options.out, seed=options.seed, data=options.data)
        files = sorted(glob.glob(os.path.join(glob.escape(options.out), f"{name}*.*")))
        for path in files:
            console.out(path, highlight=False)  # to be copied: neither wrapped nor read as markup
        results[name] = {"numbers": numbers, "files": files}
    logs = os.path.join(options.out, "logs")
    if os.path.isdir(logs):
        console.out(f"tensorboard --logdir {shlex.quote(logs)}", highlight=False)
    return 0, {"experiments": results, "log_dir": logs if os.path.isdir(logs) else None}
