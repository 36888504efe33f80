"""Names on axes and at the ends of lines, placed where they do not collide."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from keras_initkit.plots._picture import SMALL

LINE = SMALL * 1.25 / 72  # inches from one line of text to the next


def crop_names(names: Sequence[str], length: int) -> dict[str, str]:
    """Returns names of at most `length` columns: the ends of longer ones.

    Where ends are alike, as of `block_3_dense_of_attention`, the names begin where they differ and lose their middle.
    """
    short = {name: _crop(name, length) for name in names}
    for crop, several in itertools.groupby(sorted(short, key=lambda name: (short[name], name)), key=short.__getitem__):
        alike = list(several)
        if len(alike) > 1 and crop.startswith("…"):
            same = _common_start(alike)
            start = max(same.rfind("/"), same.rfind("_")) + 1
            short |= {name: _crop("…" * (start > 0) + name[start:], length, (length - 1) // 2) for name in alike}
    return short


def _crop(name: str, length: int, keep: int = 0) -> str:
    """Returns the end of a name, and its first `keep` characters, with an ellipsis for what is left out."""
    name = " ".join(name.split())  # on one line
    columns = [2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name]
    if sum(columns) <= length:
        return name
    start = len(name)
    while start > keep and sum(columns[:keep]) + sum(columns[start - 1 :]) < length:
        start -= 1
    return f"{name[:keep]}…{name[start:]}"


def choose_names(names: Sequence[str], capacity: int, length: int = 24) -> dict[int, str]:
    """Returns which places of an axis to name: all if they fit, the first layers of blocks if not, or every n-th.

    Args:
        names: Sequence of strings. Paths of the layers, in order.
        capacity: Integer. How many names fit.
        length: Integer. Longer names are cropped.
    """
    names = _without_common_path(names)
    labels = [_crop(name, length) for name in names]
    if len(labels) <= capacity and len(set(labels)) == len(labels):  # the ends of paths may be alike
        return dict(enumerate(labels))
    starts = [0, *(i + 1 for i, (a, b) in enumerate(itertools.pairwise(map(_block, names))) if a != b)]
    if len(starts) > 0.6 * len(names):  # layers that are numbered one by one make no blocks
        step = -(-len(names) // capacity)
        short = crop_names(names, length)
        return {place: short[names[place]] for place in range(0, len(names), step)}
    ends = [*starts[1:], len(names)]
    largest = sorted(zip(starts, ends, strict=True), key=lambda block: block[0] - block[1])
    apart = len(names) / capacity
    chosen: dict[int, str] = {}
    for start, end in largest:
        if all(abs(start - other) >= apart for other in chosen):
            chosen[start] = _crop(_block(names[start]), length) if end > start + 1 else labels[start]
    return dict(sorted(chosen.items()))


def _without_common_path(names: Sequence[str]) -> Sequence[str]:
    """Returns the paths from the first part on in which they differ."""
    if len(names) < 2:
        return names
    start = _common_start(names).rfind("/") + 1
    return [name[start:] for name in names]


def _common_start(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _block(name: str) -> str:
    """Returns the block of a layer: the first part of its path, or its name up to the first number inside it."""
    if "/" in name:
        return name.split("/", 1)[0]
    match = re.match(r"(.*?\d[^_]*)_.", name)
    return match[1] if match else name


def name_columns(panel: Axes, names: Sequence[str], capacity: int = 32) -> None:
    """Names the places 0, 1, ... of a horizontal axis."""
    chosen = choose_names(names, capacity, 20)
    upright = sum(map(len, chosen.values())) + 2 * len(chosen) > 80 or max(map(len, chosen.values()), default=0) > 10
    panel.set_xticks(
        list(chosen), list(chosen.values()), fontsize=SMALL, parse_math=False, rotation=90 if upright else 0
    )


def name_rows(panel: Axes, names: Sequence[str], height: float) -> None:
    """Names the places 0, 1, ... of a vertical axis of this height in inches."""
    chosen = choose_names(names, max(int(height / LINE), 2))
    panel.set_yticks(list(chosen), list(chosen.values()), fontsize=SMALL, parse_math=False)


def name_line_ends(panel: Axes, ends: Mapping[str, tuple[float, str]], height: float) -> None:
    """Writes the names of lines at the right of a panel, each as near to its line's end as the others allow.

    Args:
        panel: an axes whose limits are set.
        ends: Mapping from each name to its line's last value and color.
        height: Float. The panel's height in inches.
    """
    if not ends:
        return
    scale = panel.transScale.transform([(1.0, value) for value in (*panel.get_ylim(), *(v for v, _ in ends.values()))])
    low, high, *values = scale[:, 1]
    wanted = np.clip((np.array(values) - low) / (high - low), 0, 1)
    lines = [name.count("\n") + 1 for name in ends]
    places = spread(wanted, [LINE / height * number for number in lines])
    for place, (name, (_, color)) in zip(places, ends.items(), strict=True):
        panel.text(
            1.012, place, name, color=color, fontsize=SMALL, va="center", transform=panel.transAxes, parse_math=False
        )


def spread(wanted: Sequence[float] | np.ndarray, sizes: Sequence[float]) -> list[float]:
    """Returns places that are as far apart as the sizes ask, in the order of those that are wanted."""
    order = np.argsort(wanted, kind="stable")
    groups: list[tuple[float, float, list[int]]] = []  # middle, size, members from low to high
    for member in order:
        middle, size, members = float(wanted[member]), sizes[member], [int(member)]
        while groups and groups[-1][0] + groups[-1][1] / 2 > middle - size / 2:
            other, more, before = groups.pop()
            middle = (other * len(before) + middle * len(members)) / (len(before) + len(members))
            size, members = size + more, before + members
        groups.append((middle, size, members))
    places = [0.0] * len(sizes)
    for middle, size, members in groups:
        bottom = middle - size / 2
        for member in members:
            places[member] = bottom + sizes[member] / 2
            bottom += sizes[member]
    return places
