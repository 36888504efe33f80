"""The result of a prediction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from keras_initkit._checks import Layers, choose_layers
from keras_initkit._html import fold, heading, listing, table, view
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._tap import Tap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = ("output", "output_gradient")


class Prediction(Mapping[Tap, Expected]):
    """A read-only dictionary from each tap to the mean and variance that theory expects there.

    Args:
        expected: Mapping from `Tap` to `Expected`.
        unpredicted: Mapping from the path of each layer that cannot be predicted to the reason.
        elements: Mapping from the path of each layer to the number of elements of its output for one example.
    """

    def __init__(
        self,
        expected: Mapping[Tap, Expected],
        unpredicted: Mapping[str, str],
        elements: Mapping[str, int] | None = None,
    ):
        self._expected = dict(expected)
        self.unpredicted: dict[str, str] = dict(unpredicted)
        self._elements = dict(elements or {})

    def __getitem__(self, tap: Tap) -> Expected:
        return self._expected[tap]

    def __iter__(self) -> Iterator[Tap]:
        return iter(self._expected)

    def __len__(self) -> int:
        return len(self._expected)

    def __repr__(self) -> str:
        layers = len({tap.layer for tap in self})
        missing = f", nothing for {len(self.unpredicted)} more" if self.unpredicted else ""
        return f"<Prediction: {len(self)} tensors of {layers} layers{missing}>"

    def _repr_html_(self) -> str:
        calls: dict[tuple[str, int, str], dict[str, str]] = {}
        for tap, expected in self.items():
            if tap.kind in _KINDS:
                place = (tap.layer, tap.call or 0, tap.name)
                calls.setdefault(place, {})[tap.kind] = f"{expected.stddev:.3g}"
        repeated = {layer for layer, call, _ in calls if call}
        rows = [
            [
                layer + f" (call {call})" * (layer in repeated) + f" [{name}]" * bool(name),
                *(numbers.get(kind, "") for kind in _KINDS),
            ]
            for (layer, call, name), numbers in calls.items()
        ]
        first, left_out, last = fold(rows)
        gap = [[f"... {left_out} more", *[""] * len(_KINDS)]] if left_out else []
        reasons = [f"No prediction for {path}: {reason.rstrip('.')}." for path, reason in self.unpredicted.items()]
        more = [f"... and {len(reasons) - 12} more"] if len(reasons) > 12 else []
        return view(
            heading("Standard deviations that theory expects"),
            table(["layer", "output", "gradient"], [*first, *gap, *last]),
            listing([*reasons[:12], *more]),
        )

    def plot(self, *, layers: Layers = None, ax: Axes | Sequence[Axes] | None = None) -> Figure:
        """Draws the signal that theory expects by depth: variance forward, squared gradient of an example backward.

        Both are factors from where the signal enters: the first layer's output, the last layer's gradient.

        Args:
            layers: String, compiled regular expression, or a list of them. Layers to draw: paths, names, patterns with
                `*`. `None` means all that are predicted.
            ax: Matplotlib axes to draw into instead of a new figure: one for both directions, or a pair.

        Returns:
            A Matplotlib figure, which a notebook shows.

        Raises:
            ValueError: If nothing is predicted, a layer is unknown, or `ax` is no axes.
        """
        from keras_initkit import plots

        forward = self._variances("output", {})
        backward = self._variances("output_gradient", self._elements)
        predicted = list(dict.fromkeys([*forward, *reversed(backward)]))
        if not predicted:
            raise ValueError(
                f"plot: nothing is predicted, since {next(iter(self.unpredicted.values()), 'no layer is')}."
            )
        names = choose_layers([path for path in self._elements if path in predicted] or predicted, layers)
        ahead, back = _decades(forward, forward, names), _decades(backward, list(self._elements)[::-1], names)
        return plots.signal_by_depth(names, ahead, back, healthy=math.inf, title="theory expects", ax=ax)

    def _variances(self, kind: str, elements: Mapping[str, int]) -> dict[str, float]:
        found: dict[str, float] = {}
        for tap, expected in self.items():
            if tap.kind == kind:
                found.setdefault(tap.layer, expected.variance * elements.get(tap.layer, 1))
        return found


def _decades(values: Mapping[str, float], order: Iterable[str], names: Sequence[str]) -> dict[str, list[float | None]]:
    """Returns the line of one direction: logarithms of the values over the first in this order that is above 0."""
    known = [values[name] for name in order if 0 < values.get(name, 0.0) < math.inf]
    if not known:
        return {}
    ratios = [values[name] / known[0] if name in values else None for name in names]
    return {"theory": [ratio and math.log10(ratio) if ratio != 0 else -math.inf for ratio in ratios]}
