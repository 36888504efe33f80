"""Arguments that the callback and `watch` share."""

from __future__ import annotations

import os
import re
from typing import Any

from keras_initkit._checks import checked_option
from keras_initkit.callbacks._run_diagnosis import OnFinding


def checked_on_finding(on_finding: Any) -> OnFinding:
    """Returns what is to be done with findings.

    Raises:
        ValueError: If it is neither one of the words nor a function.
    """
    if not callable(on_finding):
        checked_option("on_finding", on_finding, ("warn", "stop", "ignore"), ", or a function that takes a Finding")
    return on_finding


def checked_log_dir(log_dir: Any) -> str | None:
    """Returns the path of a log's directory.

    Raises:
        ValueError: If it is no path of this machine.
    """
    if log_dir is None:
        return None
    if not isinstance(log_dir, str | os.PathLike):
        raise ValueError(f"log_dir: got {log_dir!r}, expected a path, or None to measure without a log.")
    path = os.path.expanduser(os.fspath(log_dir))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        raise ValueError(
            f"log_dir: got {path!r}, expected a path of this machine's file system. Log to a local directory, and copy "
            "or mount it."
        )
    return path
