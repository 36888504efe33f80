"""The result of a prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keras_initkit._html import fold, heading, listing, table, view
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._tap import Tap

_KINDS = ("output", "output_gradient")


class Prediction(Mapping[Tap, Expected]):
    """A read-only dictionary from each tap to the mean and variance that theory expects there.

    Args:
        expected: Mapping from `Tap` to `Expected`.
        unpredicted: Mapping from the path of each layer that cannot be predicted to the reason.
    """

    def __init__(self, expected: Mapping[Tap, Expected], unpredicted: Mapping[str, str]):
        self._expected = dict(expected)
        self.unpredicted: dict[str, str] = dict(unpredicted)

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
