"""Where a run is written to: the argument `log_dir`, and the directory that is made of it when training begins."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterator
from typing import Any

from keras_initkit.callbacks._event_files import RemoteFolder, join, remote_problem, url_protocol

_TIME = "{time}"


def checked_log_dir(log_dir: Any, name: str = "log_dir") -> str | None:
    """Returns a path or URL as a string, with `~` as the home directory.

    Raises:
        ValueError: If it is no path, a URL that cannot be written to with what is installed, or holds braces other
            than those of `{time}`.
    """
    if log_dir is None:
        return None
    if not isinstance(log_dir, str | os.PathLike) or not os.fspath(log_dir):
        raise ValueError(f"{name}: got {log_dir!r}, expected a path, or None to measure without a log.")
    path = os.path.expanduser(os.fspath(log_dir))
    if re.search(r"[{}]", path.replace(_TIME, "")):
        raise ValueError(
            f"{name}: got {path!r}, expected no braces but those of '{_TIME}', which stands for the time when training "
            "begins. Fill in other names before."
        )
    problem = remote_problem(path) if url_protocol(path) else None
    if problem is not None:
        raise ValueError(
            f"{name}: got {path!r}, expected a path of this machine, or a URL of a file system that fsspec knows "
            f"({problem}). Run pip install 'keras-initkit[remote]', and s3fs for s3:// or gcsfs for gs://; or choose a "
            "local directory."
        )
    return path


def make_run_directory(log_dir: str, is_another: bool = False) -> str:
    """Returns a directory for a new run.

    Args:
        log_dir: String. Path or URL; `{time}` in it is replaced by the local time, followed by -1, -2, ... where
            that is taken.
        is_another: Boolean. Whether it is another run of a callback or a copy of it. It gets `run-1`, `run-2`, ...
            below `log_dir`, unless that has the time.

    Raises:
        OSError: If the directory cannot be made.
    """
    if _TIME not in log_dir and not is_another:
        return log_dir
    return next(filter(_claims, _candidates(log_dir)))


def _candidates(log_dir: str) -> Iterator[str]:
    if _TIME not in log_dir:
        return (join(log_dir, f"run-{number}") for number in itertools.count(1))
    now = time.strftime("%Y%m%d-%H%M%S")
    return (log_dir.replace(_TIME, f"{now}-{number}" if number else now) for number in itertools.count())


def _claims(path: str) -> bool:
    """Makes a directory and returns True, unless there is one; in a store, returns whether nothing is there."""
    if url_protocol(path):
        return not RemoteFolder(path).names()
    parent = os.path.dirname(path)
    if parent:
        os.makedirs(parent, exist_ok=True)
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    return True
