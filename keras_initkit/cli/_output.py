"""The directory that a command writes to."""

from __future__ import annotations

import os


def make_writable(out: str) -> None:
    """Makes a directory, or raises an `OSError` before any work is done."""
    try:
        os.makedirs(out, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise OSError(f"--out: {out!r} cannot be written ({error}); give another directory.") from error
