"""The command `keras-initkit`: reads its arguments before it imports Keras, which takes seconds and prints lines.

It stands outside the package, which imports Keras to register its initializers.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `keras-initkit` and returns its exit status, as `keras_initkit.cli.main` does."""
    package = importlib.util.find_spec("keras_initkit")  # finds it, and does not import it
    (folder, *_) = package.submodule_search_locations  # type: ignore[union-attr]
    options = runpy.run_path(os.path.join(folder, "cli", "_parser.py"))["make_parser"]().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # otherwise TensorFlow greets on stderr
    from keras_initkit.cli import run

    return run(options)
