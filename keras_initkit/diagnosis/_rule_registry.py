"""The rules that `diagnose` applies, by the kind of their findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import KINDS, Finding

Judges = Literal["report", "run", "both"]
Direction = Literal["forward", "backward"]


@dataclass(frozen=True)
class Rule:
    """A function that finds one kind of fault: see `register_rule`."""

    kind: str
    function: Callable[[Evidence], Iterable[Finding]]
    causes: tuple[str, ...]
    judges: Judges
    direction: Direction

    def find(self, evidence: Evidence) -> Iterator[Finding]:
        """Yields what the rule finds, if it judges such evidence."""
        if self.judges == ("report" if evidence.is_run else "run"):
            return
        findings = self.function(evidence)
        if not isinstance(findings, Iterable):
            raise ValueError(f"rule {self.kind!r}: it returned {findings!r}, expected findings that it yields.")
        for finding in findings:
            if not isinstance(finding, Finding) or finding.kind != self.kind:
                raise ValueError(f"rule {self.kind!r}: it yielded {finding!r}, expected a Finding of its kind.")
            yield finding


RULES: dict[str, Rule] = {}
# The scale of the numbers that everything else is computed from can cause almost any other kind.
SCALE_CAUSES = ("constant_input", "unscaled_input", "wrong_fans", "initializer_mismatch", "update_too_large")
# What is wrong with a head, a loss or labels can leave every gradient zero, small or NaN.
TASK_CAUSES = (
    "constant_input",
    "softmax_of_one",
    "head_loss_mismatch",
    "label_mismatch",
    "target_out_of_range",
    "normalization_of_one",
)


def register_rule(
    kind: str,
    function: Callable[[Evidence], Iterable[Finding]] | None = None,
    *,
    causes: Sequence[str] = (),
    judges: Judges = "both",
    direction: Direction = "forward",
    replace: bool = False,
) -> Callable[..., Any]:
    """Adds a rule to those that `diagnose` and `LayerStatsCallback` apply.

    A rule is a function of `Evidence` that yields a `Finding` of its kind for each layer at fault. The evidence holds
    `readings`, for each report a `LayerReading` of every layer in the order of flow (those of the first and the last
    report are also called `first` and `last`), `reports`, the reports themselves, `is_run`, and `model`, a
    `ModelContext` with each kernel and what follows it, or `None` if only reports are known.

    Args:
        kind: String. The kind of the rule's findings; added to `KINDS`.
        function: The rule. Left out, this is a decorator.
        causes: Sequence of kinds that can cause this kind. Such a finding in an earlier layer or the same one, of the
            same step or an earlier one, makes a finding of this kind its consequence.
        judges: `"report"` for a rule that judges single reports only, `"run"` for one that needs the reports of a
            training run, `"both"` for one that judges whatever there is.
        direction: `"backward"` for a fault that spreads from the last layer to the first, as gradients do. It may be
            caused by later layers too.
        replace: Boolean. Whether a rule of this kind may be replaced.

    Returns:
        `function`, or the decorator.

    Raises:
        ValueError: If `kind` is no name or has a rule already, `function` is not callable, a cause is unknown, or
            `judges` or `direction` is none of their values.

    Example:

    >>> import keras
    >>> from keras_initkit.diagnosis import Finding, diagnose
    >>> @register_rule("shifted_mean", causes=["unscaled_input"])
    ... def find_shifted_means(evidence):
    ...     for layer, reading in evidence.last.items():
    ...         output = reading.output
    ...         if output is not None and abs(output.mean) > 10 * output.stddev:
    ...             yield Finding("shifted_mean", layer, evidence.reports[-1].step, "warning", {"mean": output.mean},
    ...                 "Put keras.layers.LayerNormalization() after it.", message=f"{layer} has a mean far from 0.")
    >>> bias = keras.initializers.Constant(100.0)
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, bias_initializer=bias, name="shifted")])
    >>> [finding.kind for finding in diagnose(model)]
    ['shifted_mean']
    >>> del RULES["shifted_mean"], KINDS[-1]
    """
    if not isinstance(kind, str) or not kind.isidentifier():
        raise ValueError(f"kind: got {kind!r}, expected a name of letters, digits and underscores.")
    if (
        isinstance(causes, str)
        or not isinstance(causes, Iterable)
        or not all(cause in [*KINDS, kind] for cause in causes)
    ):
        raise ValueError(f"causes: got {causes!r}, expected a sequence of kinds among {', '.join(map(repr, KINDS))}.")
    for name, value, allowed in (("judges", judges, Judges), ("direction", direction, Direction)):
        if value not in get_args(allowed):
            raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, get_args(allowed)))}.")
    if function is None:
        return lambda decorated: register_rule(
            kind, decorated, causes=causes, judges=judges, direction=direction, replace=replace
        )
    if not callable(function):
        raise ValueError(f"function: got {function!r}, expected a function of Evidence that yields findings.")
    if kind in RULES and not replace:
        raise ValueError(f"kind: got {kind!r}, which has a rule already. Pass replace=True to replace it.")
    RULES[kind] = Rule(kind, function, tuple(causes), judges, direction)
    if kind not in KINDS:
        KINDS.append(kind)
    return function
