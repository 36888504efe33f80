"""What a figure shows, in words: its title."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Decades = Sequence[float | None]
HEALTHY = 1.0  # decades from where the signal enters
WORDS = {"forward": "activations", "backward": "gradients"}


class Extreme(NamedTuple):
    """The farthest value from where the signal enters, in decades, and its place; NaN if that is not finite."""

    decades: float
    place: int


def farthest(values: Decades) -> Extreme | None:
    """Returns what is worst: a value that is not finite (the first), a zero, or the largest distance from 1."""
    known = [(value, place) for place, value in enumerate(values) if value is not None]
    if not known:
        return None
    broken = [each for each in known if math.isnan(each[0]) or each[0] == math.inf]
    if broken:
        return Extreme(math.nan, broken[0][1])
    return Extreme(*max(known, key=lambda each: abs(each[0])))


def change_in_words(decades: float) -> str:
    """Returns `"fall 6 decades"`, `"grow 40-fold"`, `"become 0"`, `"are not finite"` or `"stay within 10x"`."""
    if math.isnan(decades):
        return "are not finite"
    if decades == -math.inf:
        return "become 0"
    if abs(decades) <= HEALTHY:
        return "stay within 10x"
    verb = "fall" if decades < 0 else "grow"
    return f"{verb} {abs(decades):.0f} decades" if abs(decades) >= 1.95 else f"{verb} {10 ** abs(decades):.0f}-fold"


def signal_message(layers: Sequence[str], forward: Decades, backward: Decades) -> str:
    """Returns a sentence on the signal by depth, such as `"gradients fall 6 decades from head to stem"`."""
    parts: dict[str, str] = {}
    for direction, values in (("forward", forward), ("backward", backward)):
        worst = farthest(values)
        if worst is None:
            continue
        parts[direction] = f"{WORDS[direction]} {change_in_words(worst.decades)}"
        if abs(worst.decades) <= HEALTHY:
            continue
        name = layers[worst.place]
        if math.isfinite(worst.decades):
            parts[direction] += f" from {layers[_entry(values, direction)]} to {name}"
        else:
            same = sum(v is not None and (v == worst.decades or not (math.isfinite(v) or v < 0)) for v in values)
            parts[direction] += f" in {name}" + f" and {same - 1} more" * (same > 1)
    healthy = [text for text in parts.values() if text.endswith("within 10x")]
    layers_judged = sum(f is not None or b is not None for f, b in zip(forward, backward, strict=True))
    over = f" over {layers_judged} layers" if layers_judged > 1 else ""
    if len(healthy) == 2:
        return f"the signal stays within 10x{over}, forward and backward"
    if len(parts) == 1 and healthy:
        return healthy[0] + over
    return "; ".join(parts.values()) or "nothing was measured"


def _entry(values: Decades, direction: str) -> int:
    """Returns where the signal enters: the first (backward, the last) layer that is at 1."""
    places = [i for i, value in enumerate(values) if value is not None]
    if direction == "backward":
        places.reverse()
    return next((i for i in places if abs(values[i] or 0.0) < 1e-9), places[0])


def compare_messages(messages: Mapping[str, str]) -> str:
    """Returns a line for each of the named states, or one where there is one."""
    if len(messages) == 1:
        return next(iter(messages.values()))
    return "\n".join(f"{name}: {message}" for name, message in messages.items())
