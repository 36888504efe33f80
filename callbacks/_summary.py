"""The picture and the text that a run's log gets when training ends."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence

from keras_initkit.diagnosis import Finding, Findings
from keras_initkit.report._health import signal_decades
from keras_initkit.report._render_figures import draw_history
from keras_initkit.report._report import SignalReport

PICTURE, TEXT, FINDINGS = "layers/variance", "layers/summary", "layers/findings"
_NAMED = 5  # layers that a line names
_MARKUP = re.compile(r"([\\*_\[\]#])")
_CODE = re.compile(r": (`[^`]+`(?:; `[^`]+`)*)\.?(?: |$)")  # after a colon, in a remedy of one line


def draw_picture(reports: Sequence[SignalReport], model: str) -> bytes:
    """Returns the heat maps of `LayerStatsCallback.plot` as a PNG file."""
    file = io.BytesIO()
    draw_history(reports, model).savefig(file, format="png", dpi=100)
    return file.getvalue()


def summarize(
    reports: Sequence[SignalReport], model: str, findings: Sequence[Finding] | None, measured: int | None = None
) -> str:
    """Returns markdown: what was measured, where NaN began, the extremes over depth, the findings.

    `None` as findings stands for a run without a diagnosis. `measured` is the number of measured steps, of which
    `reports` may be a part.
    """
    first, last, number = reports[0], reports[-1], measured or len(reports)
    parts = [
        f"{quote(model)}: {number:,} measured step{'s' * (number > 1)}, from step {first.step:,} "
        f"(epoch {first.epoch}) to step {last.step:,} (epoch {last.epoch}); layers: {len(last.layers):,}.",
        _nonfinite(reports),
        _extremes([first, last] if last is not first else [first]),
        "" if findings is None else list_findings(findings) or "The diagnosis found nothing.",
    ]
    return "\n\n".join(part for part in parts if part)


def list_findings(findings: Sequence[Finding]) -> str:
    """Returns markdown: causes in full, with evidence and remedy, and in a line what follows from each."""
    found = Findings(findings)
    causes, followers = found.causes, []
    parts = []
    for cause in causes:
        following = found.consequences_of(cause)
        followers += following
        parts += [_describe(cause), _list_followers(following)]
    parts += [_describe(each) for each in found if not any(each is other for other in [*causes, *followers])]
    return "\n\n".join(part for part in parts if part)


def _describe(finding: Finding) -> str:
    about = f"step {finding.step:,}, confidence {int(100 * finding.confidence) / 100:.2f}"
    evidence = [
        f"- {name.replace('_', ' ')}: {value if isinstance(value, str) else f'{value:.3g}'}"
        for name, value in finding.evidence.items()
    ]
    parts = [
        f"#### {finding.severity}: {finding.kind} in {quote(finding.layer)}",
        f"{about}, {finding.because}" if finding.because else about,
        _plain(finding.message),
        _plain("\n".join(evidence)),
        _write_remedy(finding.remedy),
    ]
    return "\n\n".join(part for part in parts if part)


def _plain(text: str) -> str:
    """Returns text in which what is not code has no markup, and no HTML: layers have names that users give."""
    parts = re.split("(`[^`]*`)", text)
    return "".join(part if i % 2 else _MARKUP.sub(r"\\\1", part.replace("<", "&lt;")) for i, part in enumerate(parts))


def _write_remedy(remedy: str) -> str:
    """Returns a remedy as markdown, its code in blocks: the lines below a sentence, or what follows its colon."""
    sentence, _, code = remedy.partition("\n")
    if not code:
        return _CODE.sub(
            lambda match: ":\n\n" + _block(match[1].replace("`; `", "\n").strip("`")) + "\n\n", sentence
        ).strip()
    return f"{sentence}\n\n{_block(code)}"


def _block(code: str) -> str:
    fence = "`" * 5  # longer than any that a remedy has
    return f"{fence}python\n{code}\n{fence}"


def _list_followers(findings: Sequence[Finding]) -> str:
    """Returns a line for each kind that goes away with a cause, with the layers that it names."""
    layers: dict[str, list[str]] = {}
    for finding in findings:
        layers.setdefault(finding.kind, []).append(quote(finding.layer))
    lines = [
        f"- {kind} in {', '.join(names[:_NAMED])}" + f" and {len(names) - _NAMED} more" * (len(names) > _NAMED)
        for kind, names in layers.items()
    ]
    return "\n".join(["What follows from it and goes away with it:", "", *lines]) if lines else ""


def quote(name: str) -> str:
    """Returns a name as markdown code, where no character of it is markup."""
    plain = " ".join(name.replace("`", "'").replace("|", "¦").split())
    return f"`{plain}`"


def _nonfinite(reports: Sequence[SignalReport]) -> str:
    for report in reports:
        tap = report.first_nonfinite
        if tap is not None:
            what = f"the {tap.kind.replace('_', ' ')} of {quote(tap.layer)}"
            return f"NaN or infinity first appears at step {report.step:,} (epoch {report.epoch}), in {what}."
    return "All measured values are finite."


def _extremes(reports: Sequence[SignalReport]) -> str:
    """Returns a table of the weakest and the strongest signal over depth, as decades from where it enters."""
    rows = []
    for way in (0, 1):
        for report in reports:
            finite = {layer: v for layer, v in signal_decades(report)[way].items() if not math.isnan(v)}
            if finite:
                ends = (choose(finite, key=finite.__getitem__) for choose in (min, max))
                cells = " | ".join(f"{round(finite[layer], 1) + 0.0} | {quote(layer)}" for layer in ends)
                rows.append(f"| {('forward', 'backward')[way]} | {report.step:,} | {cells} |")
    if not rows:
        return ""
    head = "| signal, in decades | step | weakest | layer | strongest | layer |\n|---|---|---|---|---|---|"
    note = "Decades are from where the signal enters: 0 is the same variance, and between -1 and 1 is healthy."
    return "\n".join([head, *rows, "", note])
