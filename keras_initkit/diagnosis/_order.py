"""The order of findings: causes before consequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from keras_initkit.diagnosis._finding import KINDS, SEVERITIES, Finding
from keras_initkit.diagnosis._rule_registry import RULES
from keras_initkit.diagnosis.context._model_context import ModelContext

# As information, a deviation too small to explain anything.
_HARMLESS_AS_INFO = ("initializer_mismatch",)


def order_findings(found: Sequence[Finding], layers: Sequence[str], model: ModelContext | None = None) -> list[Finding]:
    """Links consequences to causes, and sorts: causes first, graver ones first, earlier layers first.

    A fault spreads along the edges of the model's graph, or against them if gradients carry it. Without the model the
    order of the layers is all that is known.
    """
    places = {layer: place for place, layer in enumerate(layers)}

    def place(finding: Finding) -> int:
        """The layer's place in the direction in which the fault spreads."""
        place = places.get(finding.layer, len(places))
        return -place if RULES[finding.kind].direction == "backward" else place

    def spreads(first: Finding, then: Finding) -> bool:
        """Whether what a layer puts out gets to another one."""
        known = None if model is None else model.reaches(first.layer, then.layer)
        return places.get(first.layer, len(places)) <= places.get(then.layer, len(places)) if known is None else known

    def explains(cause: Finding, finding: Finding) -> bool:
        if cause.step > finding.step or (cause.severity == "info" and cause.kind in _HARMLESS_AS_INFO):
            return False
        rule = RULES[finding.kind]
        backward = rule.direction == "backward"
        if cause.kind == finding.kind:
            ends = (finding, cause) if backward else (cause, finding)
            return place(cause) < place(finding) and spreads(*ends)
        return cause.kind in rule.causes and (spreads(cause, finding) or (backward and spreads(finding, cause)))

    by_kind: dict[str, list[Finding]] = {}  # the first cause comes first, so that a search for any ends there
    for finding in sorted(found, key=lambda each: (each.step, place(each))):
        by_kind.setdefault(finding.kind, []).append(finding)
    gravest = {kind: min(SEVERITIES.index(each.severity) for each in several) for kind, several in by_kind.items()}

    def link(finding: Finding) -> Finding:
        for kind in (*RULES[finding.kind].causes, finding.kind):
            cause = next((each for each in by_kind.get(kind, ()) if explains(each, finding)), None)
            if cause is not None:
                return replace(finding, consequence_of=kind, caused_in=cause.layer)
        return finding

    def severity(finding: Finding) -> int:
        """A cause is as grave as what follows from it."""
        own = SEVERITIES.index(finding.severity)
        followers = [kind for kind in by_kind if finding.kind in (kind, *RULES[kind].causes) and gravest[kind] < own]
        followed_by = [each for kind in followers for each in by_kind[kind] if explains(finding, each)]
        return min([own, *(SEVERITIES.index(each.severity) for each in followed_by)])

    def key(finding: Finding) -> tuple:
        rank = SEVERITIES.index(finding.severity), KINDS.index(finding.kind)
        return bool(finding.consequence_of), *rank, finding.step, place(finding)

    return sorted((replace(link(each), severity=SEVERITIES[severity(each)]) for each in found), key=key)
