"""Functions that take a while and run not too often."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable

_PAUSE = 50.0  # at least so many times what they take: 2 % of the time where `fit` is called in a loop


class Pacer:
    """Runs a function unless it ran lately.

    Args:
        pause: Float. Time that passes before the next one, as a multiple of what the last one took; `None` is 50.
        seconds: Float. Time that passes at least.
    """

    def __init__(self, pause: float | None = None, seconds: float = 0.0) -> None:
        self._pause, self._seconds = _PAUSE if pause is None else pause, seconds
        self._ended, self._took = -float("inf"), 0.0

    def run(self, function: Callable[[], None]) -> bool:
        """Runs it if it is due, and returns whether it was."""
        began = time.monotonic()
        if began - self._ended < max(self._pause * self._took, self._seconds):
            return False
        function()
        self._ended = time.monotonic()
        self._took = self._ended - began
        return True


class Deferred:
    """Runs a function now, or later where it ran lately: at a later call, or when its owner goes or Python exits."""

    def __init__(self) -> None:
        self._pacer = Pacer()
        self._waiting: list[Callable[[], None]] = []
        weakref.finalize(self, _run_all, self._waiting)

    def run(self, function: Callable[[], None]) -> None:
        """Runs a function, which replaces one that waits and must not hold this object."""
        waiting = self._waiting
        waiting[:] = [function]
        self._pacer.run(lambda: _run_all(waiting))


def _run_all(waiting: list[Callable[[], None]]) -> None:
    while waiting:
        waiting.pop()()
