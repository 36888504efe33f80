"""What is written of a run as a whole when it ends: a picture and a text."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from keras_initkit.report._render_figures import draw_history
from keras_initkit.report._report import SignalReport

PICTURE, TEXT, FINDINGS = "layers/variance", "layers/summary", "layers/findings"
_EXTREMES = {"activations": "activation_variance", "gradients at the outputs": "activation_gradient_variance"}


def picture_of(reports: Sequence[SignalReport], model: str) -> bytes:
    """The heat maps of `LayerStatsCallback.plot` as a PNG file."""
    file = io.BytesIO()
    draw_history(reports, model).savefig(file, format="png", dpi=100)
    return file.getvalue()


def text_of(reports: Sequence[SignalReport], model: str, findings: Sequence[Any]) -> str:
    """Markdown: what was measured, the first value that is not finite, the extremes over depth, the findings."""
    first, last = reports[0], reports[-1]
    parts = [
        f"{quoted(model)}: {len(reports):,} measured step{'s' * (len(reports) > 1)}, from step {first.step:,} "
        f"(epoch {first.epoch}) to step {last.step:,} (epoch {last.epoch}); layers: {len(last.layers):,}.",
        _nonfinite(reports),
        _extremes([first, last] if last is not first else [first]),
        text_of_findings(findings) if findings else "No findings.",
    ]
    return "\n\n".join(part for part in parts if part)


def text_of_findings(findings: Sequence[Any]) -> str:
    """Markdown: each finding as it is printed."""
    fence = "`" * 5  # longer than any that a remedy has
    return "\n\n".join(f"{fence}\n{finding}\n{fence}" for finding in findings)


def quoted(name: str) -> str:
    """A name as code: whatever it has of markdown, HTML or a table's bars stands as it is."""
    plain = " ".join(name.replace("`", "'").replace("|", "¦").split())
    return f"`{plain}`"


def _nonfinite(reports: Sequence[SignalReport]) -> str:
    for report in reports:
        tap = report.first_nonfinite
        if tap is not None:
            what = f"the {tap.kind.replace('_', ' ')} of {quoted(tap.layer)}"
            return f"Not finite first at step {report.step:,} (epoch {report.epoch}): {what} has a NaN or an infinity."
    return "All values that were read are finite."


def _extremes(reports: Sequence[SignalReport]) -> str:
    """A table of the largest and the smallest variance over depth."""
    rows = []
    for title, name in _EXTREMES.items():
        for report in reports:
            finite = {layer: v for layer, v in report.statistic(name).items() if math.isfinite(v)}
            if finite:
                ends = (choose(finite, key=finite.__getitem__) for choose in (max, min))
                cells = " | ".join(f"{finite[layer]:.3g} | {quoted(layer)}" for layer in ends)
                rows.append(f"| {title} | {report.step:,} | {cells} |")
    if not rows:
        return ""
    head = "| variance of | step | largest | layer | smallest | layer |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])
