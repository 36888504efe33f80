"""One number for each layer: the statistics by the names that tags, charts and tables show."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from keras_initkit.report._attention_rows import AttentionStats
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._tap import KINDS, Kind

RowsByKind = Mapping[str, Sequence[TensorStats]]
Function = Callable[[RowsByKind], float | None]


class Statistic(NamedTuple):
    """A function of a layer's rows by kind of tensor (`None` where it does not apply), and the kinds that it needs."""

    function: Function
    kinds: tuple[str, ...]


STATISTICS: dict[str, Statistic] = {}
# Those of a layer's attention; its heads and calls count together.
ATTENTION_STATISTICS: dict[str, Callable[[Sequence[AttentionStats]], float | None]] = {
    "attention_entropy": lambda rows: _mean([each for row in rows for each in row.entropy]),
    "attention_logit": lambda rows: max(each for row in rows for each in row.largest_logit),
    "attention_future": lambda rows: _mean([row.future for row in rows]),
    "attention_padding": lambda rows: _mean([row.padding for row in rows]),
}


def register_statistic(
    name: str, function: Function, kinds: Kind | Iterable[Kind] = ("output",), *, replace: bool = False
) -> None:
    """Adds a statistic that reports compute for each layer, and that `LayerStatsCallback` can log.

    It is known by its name to `SignalReport.statistic`, `SignalReport.scalars` and
    `LayerStatsCallback(statistics=[...])`, and logged under the tag `<name>/<layer>`.

    Args:
        name: String of letters, digits and underscores.
        function: Called as `function(rows)` for each layer. `rows` has a list of `TensorStats` for each kind of
            tensor that was measured, one for each call, output or weight. Returns a number, or `None` where the
            statistic does not apply.
        kinds: String or strings among `KINDS`. What a training step has to measure for this statistic. It can
            measure all but inputs and their gradients, which only `probe` does.
        replace: Boolean. Whether a statistic of this name may be replaced.

    Raises:
        ValueError: If an argument is none of these, or the name is taken by another function.

    Example:

    >>> from keras_initkit.signal import Moments, Tap, TensorStats
    >>> def peak_to_stddev(rows):
    ...     moments = Moments.merged(row.moments for row in rows.get("output", ()))
    ...     return moments.maximum / moments.stddev if moments.count and moments.stddev > 0 else None
    >>> register_statistic("peak_to_stddev", peak_to_stddev, kinds="output")
    >>> row = TensorStats(Tap("output", "dense", 0), Moments.from_array([-1.0, 1.0, -3.0, 3.0]))
    >>> peak_to_stddev({"output": [row]})
    1.3416407864998738
    >>> del STATISTICS["peak_to_stddev"]
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w+", name):
        raise ValueError(f"name: got {name!r}, expected a string of letters, digits and underscores.")
    if not callable(function):
        raise ValueError(f"function: got {function!r}, expected a function of a layer's rows by kind of tensor.")
    kinds = (kinds,) if isinstance(kinds, str) or not isinstance(kinds, Iterable) else tuple(kinds)
    if not kinds or not all(kind in KINDS for kind in kinds):
        raise ValueError(f"kinds: got {kinds!r}, expected one or more of {', '.join(map(repr, KINDS))}.")
    statistic = Statistic(function, tuple(map(str, kinds)))
    if not replace and STATISTICS.get(name, statistic) != statistic:
        raise ValueError(
            f"name: got {name!r}, which is registered for {STATISTICS[name].function!r}; expected a new name. "
            "Pass replace=True to replace it."
        )
    STATISTICS[str(name)] = statistic


def check_statistics(names: Iterable[str] | None) -> tuple[str, ...]:
    """Returns the names in the order of `STATISTICS`, all of them known; `DEFAULT_STATISTICS` for `None`."""
    if names is None:
        return DEFAULT_STATISTICS
    chosen = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    unknown = [name for name in chosen if not isinstance(name, str) or name not in STATISTICS]
    if isinstance(names, str) or unknown or not chosen:
        got = names if isinstance(names, str) else unknown[0] if unknown else chosen
        raise ValueError(
            f"statistics: got {got!r}, expected names among {', '.join(map(repr, STATISTICS))}, or None for "
            f"{', '.join(DEFAULT_STATISTICS)}.{_near_names(got) if unknown else ''}"
        )
    return tuple(name for name in STATISTICS if name in chosen)


def check_statistic(name: str) -> str:
    """Returns the name of one statistic if it is known."""
    if not isinstance(name, str) or name not in STATISTICS:
        known = ", ".join(map(repr, STATISTICS))
        raise ValueError(f"statistic: got {name!r}, expected one of {known}.{_near_names(name)}")
    return name


def _near_names(got: object) -> str:
    near = difflib.get_close_matches(str(got), STATISTICS, n=3)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def needed_kinds(statistics: Iterable[str]) -> tuple[Kind, ...]:
    """Returns the kinds of tensors that these statistics need, in the order of `KINDS`."""
    needed = {kind for name in statistics for kind in STATISTICS[name].kinds}
    return tuple(kind for kind in KINDS if kind in needed)


def read_statistics(
    rows: Iterable[TensorStats], names: Iterable[str], attention: Iterable[AttentionStats] = ()
) -> dict[str, dict[str, float]]:
    """Returns statistics of every layer to which they apply, in the order of the rows: name -> layer -> value."""
    layers: dict[str, dict[str, list[TensorStats]]] = {}
    for row in rows:
        layers.setdefault(row.tap.layer, {}).setdefault(row.tap.kind, []).append(row)
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for layer, by_kind in layers.items():
        for name, values in found.items():
            value = STATISTICS[name].function(by_kind)
            try:
                if value is not None:
                    values[layer] = float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"statistic {name!r}: it returned {value!r}, expected a number or None.") from error
    attentions: dict[str, list[AttentionStats]] = {}
    for each in attention:
        attentions.setdefault(each.layer, []).append(each)
    for name in found.keys() & ATTENTION_STATISTICS.keys():
        numbers = {layer: ATTENTION_STATISTICS[name](several) for layer, several in attentions.items()}
        found[name] |= {layer: number for layer, number in numbers.items() if number is not None}
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


_FORWARD = ("input", "pre_activation", "output")
_BACKWARD = ("output_gradient", "pre_activation_gradient", "input_gradient")
_PHASES = (("weight",), _FORWARD, _BACKWARD, ("weight_gradient",), ("weight_update",))


def first_nonfinite(rows: Sequence[TensorStats]) -> TensorStats | None:
    """Returns the first row with a NaN or an infinity, in the order in which a step makes the tensors, if there is one.

    That is: weights, signals forward, gradients backward, weight gradients, updates.
    """
    depth = {layer: i for i, layer in enumerate(dict.fromkeys(row.tap.layer for row in rows))}

    def order(row: TensorStats) -> tuple[int, ...]:
        phase = next(i for i, kinds in enumerate(_PHASES) if row.tap.kind in kinds)
        direction = -1 if phase in (2, 3) else 1  # gradients come from the last layer
        call = direction * (row.tap.call or 0)
        return phase, direction * depth[row.tap.layer], call, _PHASES[phase].index(row.tap.kind)

    return min((row for row in rows if row.moments.nonfinite), key=order, default=None)


# The built-in statistics.


def _merge(rows: RowsByKind, kind: str) -> Moments:
    """Merges all calls and outputs of a layer, or all its kernels; where it has none, all weights that it trains."""
    chosen = rows[kind]
    if len(chosen) > 1 and kind.startswith("weight"):
        kernels = [row for row in chosen if row.shape is not None and len(row.shape) > 1]
        trained = {row.tap.name for row in rows.get("weight_gradient", ())}
        chosen = kernels or [row for row in chosen if row.tap.name in trained] or chosen
    return chosen[0].moments if len(chosen) == 1 else Moments.merged(row.moments for row in chosen)


def _register_moment(name: str, kind: Kind, field: str) -> None:
    register_statistic(name, lambda rows: getattr(_merge(rows, kind), field) if kind in rows else None, kind)


def _register_fraction(field: str) -> None:
    """A fraction of units or elements of the output; the mean over calls that have rows of their own."""

    def function(rows: RowsByKind) -> float | None:
        fractions = [(getattr(row, field), row.moments.count) for row in rows.get("output", ())]
        fractions = [(fraction, count) for fraction, count in fractions if fraction is not None]
        total = sum(count for _, count in fractions)
        return sum(fraction * count for fraction, count in fractions) / total if total else None

    register_statistic(field, function, "output")


def _update_ratio(rows: RowsByKind) -> float | None:
    """Divides the standard deviation of the update by that of the weight; `None` for weights that are all equal."""
    if "weight_update" not in rows or "weight" not in rows:
        return None
    weight = _merge(rows, "weight").stddev
    return _merge(rows, "weight_update").stddev / weight if weight != 0 else None


def _nonfinite(rows: RowsByKind) -> float:
    """Counts NaN and infinite elements in everything that was measured of the layer."""
    return float(sum(row.moments.nonfinite for several in rows.values() for row in several))


_register_moment("activation_mean", "output", "mean")
_register_moment("activation_variance", "output", "variance")
_register_moment("activation_gradient_variance", "output_gradient", "variance")
_register_moment("pre_activation_mean", "pre_activation", "mean")
_register_moment("pre_activation_variance", "pre_activation", "variance")
_register_moment("pre_activation_gradient_variance", "pre_activation_gradient", "variance")
for _field in ("dead_units", "saturated_units", "saturated"):
    _register_fraction(_field)
_register_moment("weight_variance", "weight", "variance")
_register_moment("weight_gradient_variance", "weight_gradient", "variance")
_register_moment("weight_update_variance", "weight_update", "variance")
register_statistic("update_ratio", _update_ratio, ("weight_update", "weight"))
register_statistic("nonfinite", _nonfinite, ("output", "output_gradient", "weight", "weight_gradient", "weight_update"))

for _name in ATTENTION_STATISTICS:  # of rows of their own, of a step that is measured anyway
    register_statistic(_name, lambda rows: None, "output")

BUILT_IN = frozenset(STATISTICS)
# What a person reads. Reading a pre-activation changes how a step is compiled, and attention takes a pass of its own.
DEFAULT_STATISTICS = (
    "activation_variance",
    "activation_gradient_variance",
    "dead_units",
    "saturated_units",
    "weight_gradient_variance",
    "update_ratio",
    "nonfinite",
)
