"""A finding: what is wrong, where and since when, the figures, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

SEVERITIES = ("error", "warning", "info")
# Root causes first: of two findings of one severity the one further up is the one to fix.
KINDS = (
    "unscaled_input",
    "constant_output",
    "symmetric_units",
    "wrong_fans",
    "initializer_mismatch",
    "update_too_large",
    "exploding_activation",
    "vanishing_activation",
    "frozen_weights",
    "saturated_units",
    "dead_units",
    "exploding_gradient",
    "vanishing_gradient",
    "update_too_small",
    "rank_collapse",
    "nonfinite",
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a model or its training.

    Args:
        kind: one of `KINDS`.
        layer: path of the layer where it begins.
        step: number of training steps done before it was seen.
        severity: `"error"`: the model cannot train well as it is; `"warning"`: it may, and this costs something;
            `"info"`: good to know, nothing needs to be done.
        evidence: the figures that led to it, by name; `"healthy"` says what a sound layer shows instead.
        remedy: what to change, with code to paste.
        confidence: 0 to 1. Of a fact (NaN, a gradient of exactly 0) 1; of a test 1 - p; of a figure beyond a
            threshold 0.5 at the threshold and 1 - 0.5 * 10^-d when it lies d powers of ten beyond.
        consequence_of: kind of the finding that this one follows from, and will go away with; empty for a cause.

    >>> print(Finding("dead_units", "hidden", 0, "error", {"dead": 1.0, "healthy": "at most half"}, "Draw it anew."))
    error: dead_units in hidden at step 0 (confidence 1.00)
      dead 1; healthy: at most half
      Draw it anew.
    """

    kind: str
    layer: str
    step: int
    severity: str
    evidence: Mapping[str, float | str] = field(hash=False)
    remedy: str
    confidence: float = 1.0
    consequence_of: str = ""

    def __post_init__(self):
        for name, value, expected in (("kind", self.kind, KINDS), ("severity", self.severity, SEVERITIES)):
            if value not in expected:
                raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, expected))}.")

    def __str__(self) -> str:
        because = f", follows from {self.consequence_of}" if self.consequence_of else ""
        figures = [f"{name.replace('_', ' ')} {_short(v)}" for name, v in self.evidence.items() if name != "healthy"]
        healthy = f"; healthy: {self.evidence['healthy']}" if "healthy" in self.evidence else ""
        remedy = self.remedy.replace("\n", "\n  ")
        return (
            f"{self.severity}: {self.kind} in {self.layer} at step {self.step} "
            f"(confidence {self.confidence:.2f}{because})\n  {', '.join(figures)}{healthy}\n  {remedy}"
        )


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def beyond(figure: float, threshold: float) -> float:
    """Confidence in a figure that lies beyond a threshold, on either side of it: see `Finding`.

    >>> beyond(1e-8, 1e-6), beyond(50.0, 5.0)
    (0.995, 0.95)
    """
    if figure == threshold or figure <= 0 or not math.isfinite(figure):
        return 0.5 if figure == threshold else 1.0
    return 1 - 0.5 * 10 ** -abs(math.log10(figure / threshold))
