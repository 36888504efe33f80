"""One number for each layer: the statistics of a report by the names that tags, charts and tables show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._tap import KINDS, Tap

if TYPE_CHECKING:
    from keras_initkit.report._report import SignalReport
from keras_initkit.report._rows import TensorStats

Rows = Mapping[str, list["TensorStats"]]  # one layer's, by kind of tap


class Statistic(NamedTuple):
    """How a statistic is read.

    Args:
        kinds: the taps that it needs.
        read: its value, from one layer's rows by kind; `None` where it does not apply.
    """

    kinds: tuple[str, ...]
    read: Callable[[Rows], float | None]


def _moment(kind: str, field: str) -> Statistic:
    """Of all calls and outputs of the layer together, or of all its kernels."""
    return Statistic((kind,), lambda rows: getattr(_merged(rows, kind), field) if kind in rows else None)


def _share(field: str) -> Statistic:
    """Of the layer's output; the mean over its calls, where they stand in rows of their own."""

    def read(rows: Rows) -> float | None:
        shares = [(getattr(row, field), row.moments.count) for row in rows.get("output", ())]
        shares = [(share, count) for share, count in shares if share is not None]
        total = sum(count for _, count in shares)
        return sum(share * count for share, count in shares) / total if total else None

    return Statistic(("output",), read)


def _update_ratio(rows: Rows) -> float | None:
    """Standard deviation of the update over that of the weight; none of weights that are all equal."""
    if "weight_update" not in rows or "weight" not in rows:
        return None
    weight = _merged(rows, "weight").stddev
    return _merged(rows, "weight_update").stddev / weight if weight != 0 else None


def _nonfinite(rows: Rows) -> float:
    """How many NaN and infinite elements all tensors that were read of the layer have."""
    return float(sum(row.moments.nonfinite for several in rows.values() for row in several))


READ_OF_A_STEP = ("output", "output_gradient", "weight", "weight_gradient", "weight_update")
STATISTICS = {
    "activation_mean": _moment("output", "mean"),
    "activation_variance": _moment("output", "variance"),
    "activation_gradient_variance": _moment("output_gradient", "variance"),
    "pre_activation_mean": _moment("pre_activation", "mean"),
    "pre_activation_variance": _moment("pre_activation", "variance"),
    "pre_activation_gradient_variance": _moment("pre_activation_gradient", "variance"),
    "dead_units": _share("dead_units"),
    "saturated_units": _share("saturated_units"),
    "saturated": _share("saturated"),
    "weight_variance": _moment("weight", "variance"),
    "weight_gradient_variance": _moment("weight_gradient", "variance"),
    "weight_update_variance": _moment("weight_update", "variance"),
    "update_ratio": Statistic(("weight_update", "weight"), _update_ratio),
    "nonfinite": Statistic(READ_OF_A_STEP, _nonfinite),
}
# Reading a pre-activation changes how a step is compiled, so a training step reads none unless asked.
DEFAULT_STATISTICS = tuple(name for name in STATISTICS if not name.startswith("pre_activation"))


def checked_statistics(names: Iterable[str] | None) -> tuple[str, ...]:
    """The names in the order of `STATISTICS`; the default ones for `None`.

    Raises:
        ValueError: for an unknown name, or none.
    """
    if names is None:
        return DEFAULT_STATISTICS
    known = f"expected names among {', '.join(map(repr, STATISTICS))}, or None for all but pre-activations."
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(f"statistics: got {names!r}, {known}")
    chosen = list(names)
    unknown = [name for name in chosen if not isinstance(name, str) or name not in STATISTICS]
    if unknown or not chosen:
        raise ValueError(f"statistics: got {unknown[0] if unknown else chosen!r}, {known}")
    return tuple(name for name in STATISTICS if name in chosen)


def kinds_of(statistics: Iterable[str]) -> tuple[str, ...]:
    """The kinds of taps that these statistics need, in the order of `KINDS`."""
    needed = {kind for name in statistics for kind in STATISTICS[name].kinds}
    return tuple(kind for kind in KINDS if kind in needed)


def values_by_layer(report: SignalReport, names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Statistics of every layer that has them, in the report's order: name -> layer -> value."""
    layers: dict[str, dict[str, list[TensorStats]]] = {}
    for row in report.rows:
        layers.setdefault(row.tap.layer, {}).setdefault(row.tap.kind, []).append(row)
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for layer, rows in layers.items():
        for name, values in found.items():
            value = STATISTICS[name].read(rows)
            if value is not None:
                values[layer] = value
    return found


def _merged(rows: Rows, kind: str) -> Moments:
    chosen = rows[kind]
    if len(chosen) > 1 and kind.startswith("weight"):
        kernels = [row for row in chosen if row.shape is not None and len(row.shape) > 1]
        trained = {row.tap.name for row in rows.get("weight_gradient", ())}
        chosen = kernels or [row for row in chosen if row.tap.name in trained] or chosen
    return chosen[0].moments if len(chosen) == 1 else Moments.merged(row.moments for row in chosen)


_FORWARD = ("input", "pre_activation", "output")
_BACKWARD = ("output_gradient", "pre_activation_gradient", "input_gradient")
_PARTS = (("weight",), _FORWARD, _BACKWARD, ("weight_gradient",), ("weight_update",))


def first_nonfinite(report: SignalReport) -> Tap | None:
    """The first tensor, in the order in which a step makes them, that has a NaN or an infinity."""
    depth = {layer: i for i, layer in enumerate(report.layers)}

    def place(tap: Tap) -> tuple[float, ...]:
        part = next(i for i, kinds in enumerate(_PARTS) if tap.kind in kinds)
        way = -1 if part in (2, 3) else 1  # gradients come from the last layer
        return part, way * depth[tap.layer], way * (tap.call or 0), _PARTS[part].index(tap.kind)

    bad = [row.tap for row in report.rows if row.moments.nonfinite or math.isnan(row.moments.mean)]
    return min(bad, key=place, default=None)
