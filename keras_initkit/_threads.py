"""Changes to what all threads share, for the calls of one thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

LOCK = threading.RLock()  # held while something is put in another's place, and while it is taken away


class _Shared:
    """What an attribute holds for each thread while some of them have replaced it; also a flag in its place."""

    def __init__(self, original: Any):
        self.original, self.shared = original, self
        self.by_thread: dict[int, list[Any]] = {}
        self.stand_in: Any = self
        if callable(original):

            def function(*args: Any, **kwargs: Any) -> Any:  # so that it is bound to instances, if it is a method
                return self.here()(*args, **kwargs)

            function.shared = self  # type: ignore[attr-defined]
            self.stand_in = function

    def here(self) -> Any:
        """Returns what this thread has put there last."""
        own = self.by_thread.get(threading.get_ident())
        return own[-1] if own else self.original

    def __bool__(self) -> bool:
        return bool(self.here())


@contextlib.contextmanager
def replaced_in_this_thread(owner: Any, name: str, replace: Callable[[Any], Any]) -> Iterator[None]:
    """Replaces a function or a flag of a class or module for this thread; other threads go on with the original.

    Contexts of several threads may begin and end in any order.

    Args:
        owner: A class or module.
        name: String. The attribute, which is called or asked whether it is true.
        replace: Function of what this thread finds there; returns what it is to find.

    >>> import math
    >>> with replaced_in_this_thread(math, "floor", lambda floor: lambda x: -floor(x)):
    ...     math.floor(2.5)
    -2
    >>> math.floor(2.5)
    2
    """
    thread = threading.get_ident()
    with LOCK:
        found = vars(owner)[name]
        shared = getattr(found, "shared", None)
        if not isinstance(shared, _Shared):
            shared = _Shared(found)
            setattr(owner, name, shared.stand_in)
        shared.by_thread.setdefault(thread, []).append(replace(shared.here()))
    try:
        yield
    finally:
        with LOCK:
            shared.by_thread[thread].pop()
            if not shared.by_thread[thread]:
                del shared.by_thread[thread]
            if not shared.by_thread and vars(owner)[name] is shared.stand_in:
                setattr(owner, name, shared.original)
