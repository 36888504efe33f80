"""What a figure shows, in words: its title."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Decades = Sequence[float | None]
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


def change_in_words(decades: float, healthy: float) -> str:
    """Returns `"fall 6 decades"`, `"become 0"`, `"are not finite"`, or, if healthy, `"stay within 8x"`."""
    if math.isnan(decades):
        return "are not finite"
    if decades == -math.inf:
        return "become 0"
    if abs(decades) <= healthy:
        return f"stay within {_rounded_up(10 ** abs(decades))}x"
    verb = "fall" if decades < 0 else "grow"
    return f"{verb} {abs(decades):.0f} decades" if abs(decades) >= 1.95 else f"{verb} {10 ** abs(decades):.0f}-fold"


def signal_message(layers: Sequence[str], forward: Decades, backward: Decades, healthy: float) -> str:
    """Returns a sentence on the signal by depth, such as `"gradients fall 6 decades from head to stem"`."""
    parts: dict[str, str] = {}
    largest = 0.0
    for direction, values in (("forward", forward), ("backward", backward)):
        worst = farthest(values)
        if worst is None:
            continue
        parts[direction] = f"{WORDS[direction]} {change_in_words(worst.decades, healthy)}"
        if abs(worst.decades) <= healthy:
            largest = max(largest, abs(worst.decades))
            continue
        name = layers[worst.place]
        if math.isfinite(worst.decades):
            parts[direction] += f" from {layers[_entry(values, direction)]} to {name}"
        else:
            same = sum(v is not None and (v == worst.decades or not (math.isfinite(v) or v < 0)) for v in values)
            parts[direction] += f" in {name}" + f" and {same - 1} more" * (same > 1)
    steady = [text for text in parts.values() if " stay within " in text]
    layers_judged = sum(f is not None or b is not None for f, b in zip(forward, backward, strict=True))
    over = f" over {layers_judged} layers" if layers_judged > 1 else ""
    if len(steady) == 2:
        return f"the signal stays within {_rounded_up(10**largest)}x{over}, forward and backward"
    if len(parts) == 1 and steady:
        return steady[0] + over
    return "; ".join(parts.values()) or "no layer is judged"


def _rounded_up(factor: float) -> str:
    """Returns a factor of 1 or more with one digit, with two below 10, rounded up."""
    step = 0.1 if factor < 9.9 else 10.0 ** math.floor(math.log10(factor) - 1e-9)
    return f"{max(math.ceil(factor / step - 1e-6) * step, 1.1):,.{1 if step < 1 else 0}f}"


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
