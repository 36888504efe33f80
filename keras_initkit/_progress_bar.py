"""Progress bars on a terminal and in a notebook; in a pipe there are none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Update(Protocol):
    """Shows how much is done, and a new title."""

    def __call__(self, done: float, title: str = ...) -> None: ...


@contextlib.contextmanager
def progress_bar(title: str, total: float, visible: bool = True) -> Iterator[Update]:
    """Shows a bar on stderr while the block runs, and removes it in the end; yields the function that moves it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    visible = visible and (console.is_terminal or console.is_jupyter)
    # What is printed meanwhile stays on stdout, where rich would print it beside the bar.
    with Progress(console=console, transient=True, redirect_stdout=False, disable=not visible) as bar:
        task = bar.add_task(escape(title), total=total)

        def update(done: float, title: str = title) -> None:
            bar.update(task, completed=done, description=escape(title))

        yield update


def track(items: Sequence[Item], title: str) -> Iterator[Item]:
    """Iterates over items under a progress bar."""
    with progress_bar(title, len(items)) as update:
        for number, item in enumerate(items, 1):
            yield item
            update(number)
