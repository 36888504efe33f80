"""diagnose(): rules over reports, the root cause first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras

from keras_initkit.capture._probe import probe
from keras_initkit.diagnosis import (
    _rules_backward,
    _rules_forward,
    _rules_inputs,
    _rules_kernels,
    _rules_numbers,
    _rules_rank,
    _rules_training,
    _rules_units,
)
from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import KINDS, SEVERITIES, Finding
from keras_initkit.diagnosis._model_context import ModelContext
from keras_initkit.diagnosis._rules_numbers import first_of_the_last_nonfinite
from keras_initkit.report._report import SignalReport

ENDS = 16  # reports at each end of a run that are read
Rule = Callable[[Evidence], Iterator[Finding]]
RULES: tuple[Rule, ...] = (
    _rules_inputs.unscaled_input,
    _rules_kernels.wrong_fans,
    _rules_kernels.initializer_mismatch,
    _rules_units.symmetric_units,
    _rules_units.constant_output,
    _rules_units.saturated_units,
    _rules_units.dead_units,
    _rules_forward.vanishing_activation,
    _rules_forward.exploding_activation,
    _rules_backward.vanishing_gradient,
    _rules_backward.exploding_gradient,
    _rules_rank.rank_collapse,
    _rules_training.update_too_large,
    _rules_training.update_too_small,
    _rules_training.frozen_weights,
    _rules_numbers.nonfinite,
)
# What each kind may follow from, the deepest root first. A layer's own kind may also come from a layer before it.
_SCALE = ("unscaled_input", "wrong_fans", "initializer_mismatch", "update_too_large")
CAUSES: dict[str, tuple[str, ...]] = {
    "exploding_activation": _SCALE,
    "vanishing_activation": (*_SCALE, "symmetric_units", "saturated_units", "dead_units"),
    "saturated_units": (*_SCALE, "exploding_activation"),
    "dead_units": (*_SCALE, "symmetric_units"),
    "rank_collapse": (*_SCALE, "symmetric_units", "vanishing_activation", "saturated_units", "dead_units"),
    "constant_output": ("symmetric_units", "update_too_large", "vanishing_activation", "saturated_units", "dead_units"),
    "exploding_gradient": (*_SCALE, "exploding_activation"),
    "vanishing_gradient": (
        *_SCALE,
        "constant_output",
        "symmetric_units",
        "vanishing_activation",
        "saturated_units",
        "dead_units",
    ),
    "frozen_weights": ("constant_output", "symmetric_units", "saturated_units", "dead_units"),
    "update_too_small": ("constant_output", "symmetric_units", "saturated_units", "dead_units", "vanishing_gradient"),
    "nonfinite": (*_SCALE, "exploding_activation", "exploding_gradient"),
}
_BORNE = ("initializer_mismatch",)  # as information a deviation too small to explain anything
BACKWARD = ("vanishing_gradient", "exploding_gradient", "frozen_weights", "update_too_small")


def diagnose(
    model_or_report: keras.Model | SignalReport | Any,
    x: Any = None,
    y: Any = None,
    *,
    loss: Any = None,
    model: keras.Model | None = None,
) -> list[Finding]:
    """Names what is wrong with a model or its training, the figures that show it, and what to change.

    A report is judged as it is. A run (a callback's reports) is judged over its reports: what lasts over several
    batches, what is so from the first step on. With the model at hand, rules also know what each kernel feeds:
    initializers, fans, normalisations, residual branches. A bare report says nothing of these, so that
    `initializer_mismatch` and `wrong_fans` need the model, and other rules keep to what is certain.

    Args:
        model_or_report: A Keras model, which is probed; a `SignalReport`; or a `LayerStatsCallback` during or after
            `fit` (anything with `reports` and `model`).
        x: Inputs to probe a model with, as `keras_initkit.probe` takes them. `None` draws them from the model's input
            specification.
        y: Labels, as `probe` takes them. Without labels the gradients at the outputs are drawn from N(0, 1).
        loss: The loss of the labels, as `compile` takes it. `None` uses the loss that the model is compiled with.
        model: The model that a report was measured on.

    Returns:
        The findings, the one to fix first at the beginning; those that follow from another come after it and say so.
        Empty where nothing is wrong.

    Raises:
        ValueError: If `model_or_report` is something else or a callback that has not measured anything yet, or if
            data come with a report.

    >>> from keras import layers
    >>> model = keras.Sequential([keras.Input((8,)), layers.Dense(4, "tanh", kernel_initializer="zeros", name="hidden"),
    ...     layers.Dense(1, name="head")])
    >>> [(finding.kind, finding.layer, finding.severity) for finding in diagnose(model)][0]
    ('symmetric_units', 'hidden', 'error')
    """
    reports, model = _collect_reports(model_or_report, x, y, loss, model)
    return findings_of(reports, None if model is None else ModelContext(model))


def findings_of(reports: Sequence[SignalReport], structure: ModelContext | None = None) -> list[Finding]:
    """What `diagnose` finds, for one who asks at every step of a training run and keeps what is known of its model.

    Of many reports the first 16 and the last 16 are read, so that the thousandth step costs no more than the first,
    and the one from which on the numbers are not finite.
    """
    places = range(len(reports))
    begin = first_of_the_last_nonfinite(reports)
    chosen = sorted({*places[:ENDS], *places[begin : begin + 1], *places[-ENDS:]})
    evidence = Evidence(tuple(reports[place] for place in chosen), structure)
    found = [finding for rule in RULES for finding in rule(evidence)]
    return ordered(found, evidence)


def _collect_reports(
    model_or_report: Any, x: Any, y: Any, loss: Any, model: keras.Model | None
) -> tuple[Sequence[SignalReport], keras.Model | None]:
    """The reports to judge, and the model where it is known."""
    if isinstance(model_or_report, keras.Model):
        return (probe(model_or_report, x, y, loss=loss),), model_or_report
    for name, value in (("x", x), ("y", y), ("loss", loss)):
        if value is not None:
            raise ValueError(f"{name}: got data with reports, expected it with a model only: diagnose(model, x, y).")
    if model is not None and not isinstance(model, keras.Model):
        raise ValueError(f"model: got {type(model).__name__}, expected the keras.Model that the report speaks of.")
    if isinstance(model_or_report, SignalReport):
        return (model_or_report,), model
    reports = getattr(model_or_report, "reports", None)
    if not isinstance(reports, Sequence):
        raise ValueError(
            f"model_or_report: got {type(model_or_report).__name__}, expected a keras.Model, a SignalReport or a "
            "LayerStatsCallback. The order is diagnose(model, x, y)."
        )
    if not reports:
        raise ValueError(
            "model_or_report: got a callback without reports. Train with it first, or diagnose(model, x, y)."
        )
    return reports, model or getattr(model_or_report, "model", None)


def ordered(found: Sequence[Finding], evidence: Evidence) -> list[Finding]:
    """Causes before what follows from them, graver ones first, earlier layers first."""
    places = {layer: place for place, layer in enumerate(evidence.first)}

    def place(finding: Finding) -> int:
        return places.get(finding.layer, len(places))

    def way(finding: Finding) -> int:
        return -1 if finding.kind in BACKWARD else 1

    def explains(cause: Finding, finding: Finding) -> bool:
        if cause.step > finding.step or (cause.severity == "info" and cause.kind in _BORNE):
            return False
        downstream = place(cause) <= place(finding)
        if cause.kind == finding.kind:
            before = place(cause) > place(finding) if finding.kind in BACKWARD else place(cause) < place(finding)
            return before and cause.step <= finding.step
        return cause.kind in CAUSES.get(finding.kind, ()) and (downstream or finding.kind in BACKWARD)

    by_kind: dict[str, list[Finding]] = {}  # the first cause comes first, so that a search for any ends there
    for finding in sorted(found, key=lambda each: (each.step, way(each) * place(each))):
        by_kind.setdefault(finding.kind, []).append(finding)
    gravest = {kind: min(SEVERITIES.index(each.severity) for each in several) for kind, several in by_kind.items()}

    def linked(finding: Finding) -> Finding:
        for kind in (*CAUSES.get(finding.kind, ()), finding.kind):
            if any(explains(cause, finding) for cause in by_kind.get(kind, ()) if cause is not finding):
                return replace(finding, consequence_of=kind)
        return finding

    def severity(finding: Finding) -> str:
        """A cause is as grave as what follows from it."""
        own = SEVERITIES.index(finding.severity)
        followers = [kind for kind in by_kind if finding.kind in (kind, *CAUSES.get(kind, ())) and gravest[kind] < own]
        grave = [
            SEVERITIES.index(each.severity) for kind in followers for each in by_kind[kind] if explains(finding, each)
        ]
        return SEVERITIES[min([own, *grave])]

    def key(finding: Finding) -> tuple:
        rank = SEVERITIES.index(finding.severity), KINDS.index(finding.kind)
        return bool(finding.consequence_of), *rank, finding.step, way(finding) * place(finding)

    return sorted((replace(linked(each), severity=severity(each)) for each in found), key=key)
