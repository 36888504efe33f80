"""Applies every rule to what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

import keras_initkit.diagnosis.rules  # noqa: F401  registers the built-in rules
from keras_initkit.capture._probe import probe
from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.diagnosis._order import order_findings
from keras_initkit.diagnosis._rule_registry import RULES
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.diagnosis.rules._nonfinite_values import find_nonfinite_start
from keras_initkit.diagnosis.task._task import Task, make_task
from keras_initkit.inputs._labels import LabelError
from keras_initkit.report._report import SignalReport
from keras_initkit.structure._calls import traced_once

_REFUSED = "between 0 and 1"  # how PyTorch's binary crossentropy refuses labels
ENDS = 16  # reports at each end of a run that are read


def diagnose_reports(
    reports: Sequence[SignalReport], model: ModelContext | None = None, task: Task | None = None
) -> list[Finding]:
    """Applies every rule to the reports of a training run; `model` and `task` may be kept between calls.

    Of many reports only the first 16, the last 16 and the one from which on numbers are not finite are read:
    the thousandth step costs no more than the first.
    """
    places = range(len(reports))
    begin = find_nonfinite_start(reports)
    chosen = sorted({*places[:ENDS], *places[begin : begin + 1], *places[-ENDS:]})
    evidence = Evidence(tuple(reports[place] for place in chosen), model, task)
    with traced_once():
        found = [finding for rule in RULES.values() for finding in rule.find(evidence)]
        return order_findings(found, list(evidence.first), model)


@traced_once()
def diagnose_model(model: keras.Model, x: Any = None, y: Any = None, loss: Any = None) -> list[Finding]:
    """Probes a model and applies every rule to the report."""
    report, task = measure_task(model, x, y, loss=loss)
    return diagnose_reports((report,), task.model, task)


@traced_once()
def measure_task(
    model: keras.Model, x: Any = None, y: Any = None, *, loss: Any = None, **options: Any
) -> tuple[SignalReport, Task]:
    """Probes a model, and returns the report and the model's task.

    Labels that do not fit the outputs or the loss are left out of the probe, and the task says why they do not.

    Args:
        model: Keras model.
        x: Inputs, as `probe` takes them.
        y: Labels, likewise.
        loss: The loss of the labels.
        options: Further arguments of `probe`.
    """
    problem = ""
    try:
        report = probe(model, x, y, loss=loss, **options)
    except (LabelError, RuntimeError) as error:
        if not isinstance(error, LabelError) and _REFUSED not in str(error):
            raise
        problem = str(error) if isinstance(error, LabelError) else ""  # rules of labels name the latter
        report = probe(model, x, **options)
        note = "The gradients at the outputs were drawn from N(0, 1), because the labels do not fit them."
        report = replace(report, notes=(note, *(each for each in report.notes if "because no labels" not in each)))
    return report, make_task(ModelContext(model), x, y, loss, label_problem=problem)
