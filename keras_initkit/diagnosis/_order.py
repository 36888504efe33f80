"""The order of findings: causes before consequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from keras_initkit.diagnosis._finding import KINDS, SEVERITIES, Finding
from keras_initkit.diagnosis._rule_registry import RULES

# As information, a deviation too small to explain anything.
_HARMLESS_AS_INFO = ("initializer_mismatch",)


def order_findings(found: Sequence[Finding], layers: Sequence[str]) -> list[Finding]:
    """Links consequences to causes, and sorts: causes first, graver ones first, earlier layers first."""
    places = {layer: place for place, layer in enumerate(layers)}

    def place(finding: Finding) -> int:
        """The layer's place in the direction in which the fault spreads."""
        place = places.get(finding.layer, len(places))
        return -place if RULES[finding.kind].direction == "backward" else place

    def explains(cause: Finding, finding: Finding) -> bool:
        if cause.step > finding.step or (cause.severity == "info" and cause.kind in _HARMLESS_AS_INFO):
            return False
        if cause.kind == finding.kind:
            return place(cause) < place(finding)
        rule = RULES[finding.kind]
        upstream = places.get(cause.layer, len(places)) <= places.get(finding.layer, len(places))
        return cause.kind in rule.causes and (upstream or rule.direction == "backward")

    by_kind: dict[str, list[Finding]] = {}  # the first cause comes first, so that a search for any ends there
    for finding in sorted(found, key=lambda each: (each.step, place(each))):
        by_kind.setdefault(finding.kind, []).append(finding)
    gravest = {kind: min(SEVERITIES.index(each.severity) for each in several) for kind, several in by_kind.items()}

    def link(finding: Finding) -> Finding:
        for kind in (*RULES[finding.kind].causes, finding.kind):
            if any(explains(cause, finding) for cause in by_kind.get(kind, ())):
                return replace(finding, consequence_of=kind)
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
