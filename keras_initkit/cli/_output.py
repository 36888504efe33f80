"""Where a command prints and writes."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

from keras_initkit.report._tables import WIDTH


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raises what newer versions of rich turn into status 1, which says something else here."""
        raise  # it is called where the error is handled


def make_console() -> Console:
    """Returns the console of stdout; a pipe, which has no width, gets that of the package's tables."""
    console = _Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else _Console(width=WIDTH)


def waiting(title: str) -> Any:
    """Returns a context manager that shows on a terminal what is being done."""
    return Console(stderr=True).status(title)


def make_writable(out: str) -> None:
    """Makes a directory, or raises an `OSError` before any work is done."""
    try:
        os.makedirs(out, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise OSError(f"--out: {out!r} cannot be written ({error}); give another directory.") from error
