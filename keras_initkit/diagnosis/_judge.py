"""Applies every rule to what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

import keras_initkit.diagnosis.rules  # noqa: F401  registers the built-in rules
from keras_initkit.capture._probe import probe
from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.diagnosis._model_context import ModelContext
from keras_initkit.diagnosis._order import order_findings
from keras_initkit.diagnosis._rule_registry import RULES
from keras_initkit.diagnosis.rules._nonfinite_values import find_nonfinite_start
from keras_initkit.report._report import SignalReport
from keras_initkit.structure._calls import traced_once

ENDS = 16  # reports at each end of a run that are read


def diagnose_reports(reports: Sequence[SignalReport], model: ModelContext | None = None) -> list[Finding]:
    """Applies every rule to the reports of a training run; `model` may be kept between calls.

    Of many reports only the first 16, the last 16 and the one from which on numbers are not finite are read:
    the thousandth step costs no more than the first.
    """
    places = range(len(reports))
    begin = find_nonfinite_start(reports)
    chosen = sorted({*places[:ENDS], *places[begin : begin + 1], *places[-ENDS:]})
    evidence = Evidence(tuple(reports[place] for place in chosen), model)
    with traced_once():
        found = [finding for rule in RULES.values() for finding in rule.find(evidence)]
        return order_findings(found, list(evidence.first), model)


@traced_once()
def diagnose_model(model: keras.Model, x: Any = None, y: Any = None, loss: Any = None) -> list[Finding]:
    """Probes a model and applies every rule to the report."""
    return diagnose_reports((probe(model, x, y, loss=loss),), ModelContext(model))
