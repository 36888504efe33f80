"""The list of findings: one cause in full, what follows from it folded under it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, SupportsIndex, overload

import keras

from keras_initkit._html import listing, prose, view
from keras_initkit.diagnosis._finding import SEVERITIES, Finding
from keras_initkit.diagnosis._repair import repair
from keras_initkit.report._report import SignalReport

_NAMED = 5  # layers that a line names
_SHOWN = 20  # findings that a notebook shows


class Findings(list[Finding]):
    """The findings of a diagnosis, the one to fix first at the beginning: a list that prints as one story.

    `str` shows the first cause in full with the number of findings that follow from it and go away with it, and each
    other cause in a line. Indexing, slicing, sorting and comparing are those of a list.

    Args:
        findings: Iterable of `Finding`.

    Example:

    >>> cause = Finding("unscaled_input", "a", 0, "error", {}, "Standardize it.", message="The input is large.")
    >>> saturated = [Finding("saturated_units", layer, 0, "error", {}, "", consequence_of="unscaled_input",
    ...     caused_in="a") for layer in "ab"]
    >>> print(Findings([cause, *saturated, Finding("rank_collapse", "c", 0, "warning", {}, "", message="It is flat.")]))
    error: unscaled_input in a at step 0 (confidence 1.00)
      The input is large.
      Standardize it.
      + 2 that follow: saturated_units in a, b
    warning: rank_collapse in c at step 0: It is flat.
    """

    @property
    def causes(self) -> list[Finding]:
        """The findings that no other one causes, the one to fix first at the beginning."""
        return [finding for finding in self if not finding.consequence_of]

    def consequences_of(self, cause: Finding) -> list[Finding]:
        """Returns the findings that go away with a cause: what it causes, and what follows from that.

        Args:
            cause: A `Finding` of this list.
        """
        found: list[Finding] = []
        waiting = [cause]
        while waiting:
            one = waiting.pop()
            for finding in self:
                if _names(finding, one) and finding is not cause and not any(each is finding for each in found):
                    found.append(finding)
                    waiting.append(finding)
        return [finding for finding in self if any(each is finding for each in found)]

    def apply(self, model: keras.Model, x: Any = None, y: Any = None, *, loss: Any = None) -> SignalReport:
        """Re-initializes in place the layers whose initialization is at fault, as `keras_initkit.repair` does.

        Args:
            model: The Keras model that was diagnosed.
            x: Inputs, as the model takes them. Without them no layer is scaled on data.
            y: Labels, as `keras_initkit.probe` takes them.
            loss: The loss of the labels, as `compile` takes it. `None` uses the loss that the model is compiled with.

        Returns:
            `SignalReport`: the probe of the model afterwards; its notes begin with what was done.
        """
        return repair(model, self, x, y, loss=loss)

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Returns the findings as plain dictionaries, lists, strings and numbers, in order, under `"findings"`."""
        return {"findings": [finding.to_dict() for finding in self]}

    def __str__(self) -> str:
        if not self:
            return "Nothing is wrong."
        lines: list[str] = []
        told: list[Finding] = []
        for cause in self.causes:
            following = self.consequences_of(cause)
            told += [cause, *following]
            lines += [str(cause) if not lines else cause.summary]
            if following:
                lines += [f"  {_follow(following)}: {_by_kind(following)}"]
        orphans: dict[str, list[Finding]] = {}  # their causes are not in the list
        for finding in self:
            if not any(each is finding for each in told):
                orphans.setdefault(finding.because.removeprefix("caused by "), []).append(finding)
        lines += [f"{_follow(several)} from {cause}: {_by_kind(several)}" for cause, several in orphans.items()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        counts = [(sum(each.severity == severity for each in self), severity) for severity in SEVERITIES]
        said = ", ".join(f"{n} {severity}{'s' * (n != 1 and severity != 'info')}" for n, severity in counts if n)
        first = f", first {self[0].kind} in {self[0].layer}" if self else ""
        return f"<Findings: {said or 'nothing is wrong'}{first}>"

    def _repr_html_(self) -> str:
        """For a notebook: each cause in full, what follows from it behind a click."""
        if not self:
            return view("<p>Nothing is wrong.</p>")
        causes = self.causes or list(self)
        shown = [_to_html(cause, self.consequences_of(cause) if self.causes else []) for cause in causes[:_SHOWN]]
        more = [f"<p>... and {len(causes) - _SHOWN} more</p>"] if len(causes) > _SHOWN else []
        return view(*shown, *more)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Findings: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Finding | Findings:
        return Findings(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)


def _names(finding: Finding, cause: Finding) -> bool:
    """Whether a finding says that another one causes it."""
    return finding.consequence_of == cause.kind and finding.caused_in in ("", cause.layer)


def _follow(findings: Sequence[Finding]) -> str:
    return f"+ {len(findings)} that follow{'s' * (len(findings) == 1)}"


def _by_kind(findings: Sequence[Finding]) -> str:
    layers: dict[str, list[str]] = {}
    for finding in findings:
        layers.setdefault(finding.kind, []).append(finding.layer)
    return "; ".join(f"{kind} in {', '.join(_few(names))}" for kind, names in layers.items())


def _few(names: Sequence[str]) -> list[str]:
    return [*names[:_NAMED], *([f"{len(names) - _NAMED} more"] if len(names) > _NAMED else [])]


def _to_html(cause: Finding, following: Sequence[Finding]) -> str:
    title, *text = str(cause).split("\n")
    mark = {"error": "ik-alarm", "warning": "ik-outside"}.get(cause.severity, "")
    body = "<br>".join(prose(line.strip()) for line in text)
    folded = listing([finding.summary for finding in following[:_SHOWN]])
    if folded:
        more = f"<p>... and {len(following) - _SHOWN} more</p>" if len(following) > _SHOWN else ""
        folded = f"<details><summary>{_follow(following)}</summary>{folded}{more}</details>"
    return f'<div style="margin:.4em 0"><b class="{mark}">{escape(title)}</b><br>{body}{folded}</div>'
