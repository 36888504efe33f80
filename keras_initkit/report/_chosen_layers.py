"""Selection of a report's layers by name or pattern."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from typing import TypeAlias

Layers: TypeAlias = str | re.Pattern[str] | Sequence[str | re.Pattern[str]] | None


def choose_layers(names: Sequence[str], chosen: Layers) -> list[str]:
    """Returns the names that are chosen, in their order; all for `None`.

    Args:
        names: Sequence of strings. Paths of the layers.
        chosen: String, compiled regular expression, or a list of them. A string is a path, a layer's name, the path of
            a composite layer, which chooses its parts, or a pattern with `*`; an expression is searched in the path.

    Raises:
        ValueError: If a choice matches no layer.
    """
    if chosen is None:
        return list(names)
    found: set[str] = set()
    for choice in [chosen] if isinstance(chosen, (str, re.Pattern)) else list(chosen):
        if not isinstance(choice, (str, re.Pattern)):
            raise ValueError(f"layers: got {choice!r}, expected a name, a pattern with *, or a regular expression.")
        matches = {name for name in names if _matches(choice, name)}
        if not matches:
            near = difflib.get_close_matches(str(choice), names, n=3) or list(names)[:10]
            raise ValueError(
                f"layers: got {choice!r}, which matches no layer of the report; there is {', '.join(near)}."
            )
        found |= matches
    return [name for name in names if name in found]


def _matches(choice: str | re.Pattern[str], name: str) -> bool:
    if isinstance(choice, re.Pattern):
        return bool(choice.search(name))
    return choice in (name, name.rpartition("/")[2]) or name.startswith(f"{choice}/") or fnmatch.fnmatch(name, choice)
