"""What was measured at one point of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_initkit.signal.moments import Moments
from keras_initkit.signal.taps import Tap

# Name of a statistic, as tags and tables show it: the kind of tap and the property of its moments.
STATISTICS = {
    "activation_mean": ("activation", "mean"),
    "activation_variance": ("activation", "variance"),
    "activation_gradient_variance": ("activation_gradient", "variance"),
    "weight_variance": ("weight", "variance"),
    "weight_gradient_variance": ("weight_gradient", "variance"),
}


@dataclass(frozen=True)
class SignalReport:
    """Moments of every tap at one training step.

    Args:
        step: number of training steps done before the measured one.
        epoch: the epoch of the measured step, from 0.
        moments: by tap; a tap that saw nothing (a frozen layer's gradient) is absent.
    """

    step: int
    epoch: int
    moments: Mapping[Tap, Moments]

    @property
    def layers(self) -> list[str]:
        """Paths of the measured layers, in the model's order."""
        return list(dict.fromkeys(tap.layer for tap in self.moments))

    def statistic(self, name: str) -> dict[str, float]:
        """One statistic by layer, such as `"activation_variance"`.

        Raises:
            ValueError: for an unknown name.
        """
        if name not in STATISTICS:
            raise ValueError(f"statistic: got {name!r}, expected one of {', '.join(map(repr, STATISTICS))}.")
        kind, field = STATISTICS[name]
        return {tap.layer: getattr(moments, field) for tap, moments in self.moments.items() if tap.kind == kind}

    def scalars(self) -> dict[str, float]:
        """Every statistic of every layer, by its tag `<statistic>/<layer>`."""
        return {f"{name}/{layer}": value for name in STATISTICS for layer, value in self.statistic(name).items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the step, the epoch, and the moments by kind and layer."""
        moments: dict[str, dict[str, Any]] = {}
        for tap, values in self.moments.items():
            moments.setdefault(tap.kind, {})[tap.layer] = values.to_dict()
        return {"step": self.step, "epoch": self.epoch, "moments": moments}
