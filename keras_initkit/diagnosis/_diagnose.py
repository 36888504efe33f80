"""diagnose(): rules over reports, the root cause first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.diagnosis._findings import Findings
from keras_initkit.diagnosis._judge import diagnose_model, diagnose_reports
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.diagnosis.task._task import make_task
from keras_initkit.report._report import SignalReport
from keras_initkit.structure._calls import traced_once


@traced_once()
def diagnose(
    model_or_report: keras.Model | SignalReport | Any,
    x: Any = None,
    y: Any = None,
    *,
    loss: Any = None,
    model: keras.Model | None = None,
) -> Findings:
    """Finds what is wrong with a model or its training, with the evidence and what to change.

    A single report is judged by itself. The reports of a run (a callback's) are judged together: faults that last over
    several batches, or that are there from the first step on. If the model is known, the rules also know each kernel's
    initializer, its fans, and the activations, normalizations and residual branches around it. Without the model,
    `initializer_mismatch` and `wrong_fans` are never found, and the other rules report only what is certain.

    Args:
        model_or_report: A Keras model, which is probed; a `SignalReport`; or a `LayerStatsCallback` during or after
            `fit` (anything with `reports` and `model`).
        x: Inputs to probe a model with, as `keras_initkit.probe` takes them. `None` draws them from the model's input
            specification.
        y: Labels, as `probe` takes them. Without labels the gradients at the outputs are drawn from N(0, 1).
        loss: The loss of the labels, as `compile` takes it. `None` uses the loss that the model is compiled with.
        model: The model that a report was measured on.

    Returns:
        `Findings`, a list of `Finding`, the one to fix first at the beginning. Findings that are caused by another come
        after it and name it. Empty if nothing is wrong. Printed, it shows the first cause in full and folds what
        follows from it.

    Raises:
        ValueError: If `model_or_report` is something else or a callback that has not measured anything yet, or if
            data come with a report.

    Example:

    >>> from keras import layers
    >>> model = keras.Sequential([keras.Input((8,)), layers.Dense(4, "tanh", kernel_initializer="zeros", name="hidden"),
    ...     layers.Dense(1, name="head")])
    >>> [(finding.kind, finding.layer, finding.severity) for finding in diagnose(model)][0]
    ('symmetric_units', 'hidden', 'error')
    """
    if isinstance(model_or_report, keras.Model):
        if model is not None:
            _check_model(model)
        return Findings(diagnose_model(model_or_report, x, y, loss))
    reports, model = _collect_reports(model_or_report, x, y, loss, model)
    if model is None:
        return Findings(diagnose_reports(reports))
    context = ModelContext(model)
    return Findings(diagnose_reports(reports, context, getattr(model_or_report, "task", None) or make_task(context)))


def _collect_reports(
    model_or_report: Any, x: Any, y: Any, loss: Any, model: keras.Model | None
) -> tuple[Sequence[SignalReport], keras.Model | None]:
    """The reports to judge, and the model where it is known."""
    if model is not None:
        _check_model(model)
    for name, value in (("x", x), ("y", y), ("loss", loss)):
        if value is not None:
            raise ValueError(f"{name}: got data with reports, expected it with a model only: diagnose(model, x, y).")
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


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: got {type(model).__name__}, expected the keras.Model that the report is about.")
