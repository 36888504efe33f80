"""Where a command writes."""

from __future__ import annotations

import os


def make_writable(out: str) -> None:
    """Fails before the work, not after it."""
    try:
        os.makedirs(out, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise OSError(f"--out: {out!r} cannot be written ({error}); give another directory.") from error
