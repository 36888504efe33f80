"""The rule for targets that the last activation cannot reach."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.diagnosis.task._task import Output, Task
from keras_initkit.diagnosis.task._task_remedies import activation_code, compile_code, labels_code, write_remedy
from keras_initkit.theory._thresholds import GRAVE_UNREACHABLE, UNREACHABLE


@register_rule("target_out_of_range", causes=("softmax_of_one", "head_loss_mismatch"))
def find_target_out_of_range(evidence: Evidence) -> Iterator[Finding]:
    """Finds targets that the last activation cannot reach.

    What it can give at best is the nearest number within its limits. The error that remains, relative to the variance
    of the targets, is the part that no training explains: above 5 % an error, above 0.1 % a warning. Of a crossentropy
    the targets have to be within 0 and 1 themselves.
    """
    task = evidence.task
    for output, loss in () if task is None else task.with_loss:
        labels, head = output.labels, output.head
        if task is None or labels is None or not labels.counted.size:
            continue
        limits = head.limits if loss.kind == "regression" else (0.0, 1.0) if loss.kind == "binary" else None
        if limits is None or (loss.kind == "binary" and (labels.are_integers or task.masks)):
            continue
        if head.activation == "softmax" and head.normalized_units == 1:
            continue
        values, (low, high) = labels.counted, limits
        near = 1e-3 * (min(high - low, float(np.ptp(values))) or 1.0)
        share = float(np.mean((values < low - near) | (values > high + near)))
        remains = float(np.mean((values - np.clip(values, low, high)) ** 2))
        remains /= float(np.var(values)) or max(float(np.mean(values**2)), 1e-30)
        if share == 0 or remains < UNREACHABLE:
            continue
        least, largest = labels.limits
        gives = f"{low:g} to {high:g}" if high < float("inf") else f"{low:g} upwards"
        if low == -float("inf"):
            gives = f"numbers up to {high:g}"
        if loss.kind == "binary":
            message = f"{loss.name} expects targets from 0 to 1; {share:.1%} are beyond: they go from "
            remedy = write_remedy("Scale the targets to 0..1", *scaling_code(task, output, least, largest))
        else:
            message = f"{share:.1%} of the targets are beyond what {head.path} can give, {gives} ({head.activation}): "
            message += "they go from "
            code = [activation_code(task, head, "linear"), compile_code(task, output)]
            remedy = write_remedy("Numbers of any size take no activation", *code)
        yield Finding(
            "target_out_of_range",
            head.path,
            evidence.reports[0].step,
            "error" if remains > GRAVE_UNREACHABLE else "warning",
            {
                "out_of_range": share,
                "unreachable_variance": remains,
                "least_target": least,
                "largest_target": largest,
                "healthy": f"within {gives}",
            },
            remedy,
            message=f"{message}{least:.3g} to {largest:.3g}.",
        )


def scaling_code(task: Task, output: Output, least: float, largest: float) -> list[str]:
    """Returns the code that scales targets to 0..1."""
    if least == 0:
        return [labels_code(task, output, f" / {largest:g}")]
    return [labels_code(task, output, "", f"(y - {least:g}) / {largest - least:g}")]
