"""The picture and the text that a run's log gets when training ends."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from keras_initkit.diagnosis import Finding
from keras_initkit.report._render_figures import draw_history
from keras_initkit.report._report import SignalReport

PICTURE, TEXT, FINDINGS = "layers/variance", "layers/summary", "layers/findings"
_EXTREMES = {"activations": "activation_variance", "gradients at the outputs": "activation_gradient_variance"}


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
        "" if findings is None else list_findings(findings) or "No findings.",
    ]
    return "\n\n".join(part for part in parts if part)


def list_findings(findings: Sequence[Finding]) -> str:
    """Returns markdown with each finding as it is printed."""
    fence = "`" * 5  # longer than any that a remedy has
    return "\n\n".join(f"{fence}\n{finding}\n{fence}" for finding in findings)


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
    """Returns a table of the largest and the smallest variance over depth."""
    rows = []
    for title, name in _EXTREMES.items():
        for report in reports:
            finite = {layer: v for layer, v in report.statistic(name).items() if math.isfinite(v)}
            if finite:
                ends = (choose(finite, key=finite.__getitem__) for choose in (max, min))
                cells = " | ".join(f"{finite[layer]:.3g} | {quote(layer)}" for layer in ends)
                rows.append(f"| {title} | {report.step:,} | {cells} |")
    if not rows:
        return ""
    head = "| variance of | step | largest | layer | smallest | layer |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])
