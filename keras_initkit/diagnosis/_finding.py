"""A finding: what is wrong, where and since when, the evidence, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Severity = Literal["error", "warning", "info"]
# Root causes first: of two findings of one severity the one further up is the one to fix.
FindingKind = Literal[
    "constant_input",
    "softmax_of_one",
    "head_loss_mismatch",
    "label_mismatch",
    "target_out_of_range",
    "normalization_of_one",
    "linear_stack",
    "unshuffled_labels",
    "unscaled_input",
    "constant_output",
    "future_attended",
    "uneven_attention",
    "padding_attended",
    "positions_lost",
    "residual_lost",
    "symmetric_units",
    "wrong_fans",
    "initializer_mismatch",
    "update_too_large",
    "exploding_activation",
    "vanishing_activation",
    "collapsed_attention",
    "query_key_frozen",
    "uniform_attention",
    "frozen_weights",
    "saturated_units",
    "dead_units",
    "exploding_gradient",
    "overshooting_step",
    "vanishing_gradient",
    "update_too_small",
    "batch_norm_lag",
    "rank_collapse",
    "nonfinite",
]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
KINDS: list[str] = [*get_args(FindingKind)]  # `register_rule` adds the users' kinds


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a model or its training.

    Args:
        kind: String. One of `KINDS`.
        layer: String. Path of the layer where it begins.
        step: Integer. Number of training steps that were done before it was seen.
        severity: `"error"`: the model cannot train well as it is; `"warning"`: it may, but this costs something;
            `"info"`: good to know, nothing needs to be done.
        evidence: Mapping of the numbers that led to it, by name; `"healthy"` says what a healthy layer shows instead.
        remedy: String. What to change, with code to paste.
        confidence: Float from 0 to 1. It is 1 only for a fact that one report proves (NaN, equal weights), 1 - p for a
            statistical test, $1 - 1 / (n + 2)$ for what n examples or batches have all shown, and for a number beyond a
            threshold 0.5 at the threshold and $1 - 0.5 \\cdot 10^{-d}$ at $d$ powers of ten beyond it.
        consequence_of: String. Kind of the finding that causes this one, which goes away with it; empty for a root
            cause.
        message: String. What is wrong, in a sentence. Left out, the evidence is printed in its place.
        caused_in: String. Layer of the finding that causes this one.

    Raises:
        ValueError: If `kind` or `severity` is unknown, or `evidence` is no mapping.

    Example:

    >>> evidence = {"dead": 1.0, "healthy": "at most half"}
    >>> print(Finding("dead_units", "hidden", 0, "error", evidence, "Re-initialize it.", message="All units are dead."))
    error: dead_units in hidden at step 0 (confidence 1.00)
      All units are dead.
      Re-initialize it.
    """

    kind: FindingKind | str
    layer: str
    step: int
    severity: Severity
    evidence: Mapping[str, float | str] = field(hash=False)
    remedy: str
    confidence: float = 1.0
    consequence_of: FindingKind | str = ""
    message: str = ""
    caused_in: str = ""

    def __post_init__(self) -> None:
        for name, value, expected in (("kind", self.kind, KINDS), ("severity", self.severity, SEVERITIES)):
            if value not in expected:
                raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, expected))}.")
        if not isinstance(self.evidence, Mapping):
            raise ValueError(f"evidence: got {self.evidence!r}, expected a mapping of numbers by name.")

    def __repr__(self) -> str:
        because = f", {self.because}" if self.consequence_of else ""
        return f"<Finding {self._title}{because}>"

    def __str__(self) -> str:
        because = f", {self.because}" if self.consequence_of else ""
        text = f"{self.message or self._list_evidence()}\n{self.remedy}".replace("\n", "\n  ")
        # Rounded down: 1.00 is for facts.
        return f"{self._title} (confidence {int(100 * self.confidence) / 100:.2f}{because})\n  {text}"

    @property
    def because(self) -> str:
        """What causes it, in words; empty for a root cause."""
        where = f" in {self.caused_in}" if self.caused_in else ""
        return f"caused by {self.consequence_of}{where}" if self.consequence_of else ""

    @property
    def summary(self) -> str:
        """What is wrong and where, in one line."""
        return f"{self._title}: {self.message or self._list_evidence()}"

    def to_dict(self) -> dict[str, Any]:
        """Returns its fields as plain dictionaries, strings and numbers."""
        numbers = {name: v if isinstance(v, (str, int, float)) else float(v) for name, v in self.evidence.items()}
        return {**vars(self), "evidence": numbers}

    @property
    def _title(self) -> str:
        return f"{self.severity}: {self.kind} in {self.layer} at step {self.step}"

    def _list_evidence(self) -> str:
        figures = [f"{name.replace('_', ' ')} {_short(v)}" for name, v in self.evidence.items() if name != "healthy"]
        return ", ".join(figures) + (f"; healthy: {self.evidence['healthy']}" if "healthy" in self.evidence else "")


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def format_factor(value: float) -> str:
    """Formats a factor to three digits, as a reader says it.

    >>> format_factor(4012.3), format_factor(2.5), format_factor(3.2e9), format_factor(float("inf"))
    ('4,010', '2.5', '3.2e+09', 'inf')
    """
    if not 1e3 <= abs(value) < 1e7:
        return f"{value:.3g}"
    return f"{float(f'{value:.3g}'):,.0f}"


def confidence_after(number: int) -> float:
    """Returns the confidence that what `number` examples or batches have all shown, and no other, will last.

    Laplace's rule of succession: after n observations without an exception the next is one with probability 1/(n + 2).

    >>> confidence_after(8)
    0.9
    """
    return 1 - 1 / (number + 2)


def confidence_beyond(value: float, threshold: float) -> float:
    """Returns the confidence in a number that lies beyond a threshold, on either side of it: see `Finding`.

    Example:

    >>> confidence_beyond(1e-8, 1e-6), confidence_beyond(50.0, 5.0)
    (0.995, 0.95)
    """
    if value <= 0 or not math.isfinite(value):
        return 1.0
    return 1 - 0.5 * 10 ** -abs(math.log10(value / threshold))
