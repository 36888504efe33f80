"""The picture and the summary of a run, written when a training ends, and not too often."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable

_PAUSE = 50.0  # at least so many times what they take: 2 % of the time where `fit` is called in a loop


class RunPicture:
    """Runs a function now, or later where it ran lately: at a later call, or when its owner goes or Python exits."""

    def __init__(self) -> None:
        self._ended, self._took = -float("inf"), 0.0
        self._waiting: list[Callable[[], None]] = []
        weakref.finalize(self, _run_all, self._waiting)

    def write(self, write: Callable[[], None]) -> None:
        """Runs `write`, which replaces one that waits and must not hold this object."""
        self._waiting[:] = [write]
        began = time.monotonic()
        if began - self._ended >= _PAUSE * self._took:
            _run_all(self._waiting)
            self._ended = time.monotonic()
            self._took = self._ended - began


def _run_all(waiting: list[Callable[[], None]]) -> None:
    while waiting:
        waiting.pop()()
