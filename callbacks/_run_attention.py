"""Attention while a model trains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from keras_initkit.capture._attention_pass import read_attention
from keras_initkit.report._report import SignalReport
from keras_initkit.report._scalars import ATTENTION_STATISTICS
from keras_initkit.structure._calls import Traces, calls, traced_once


class RunAttention:
    """Reads attention after measured steps, in a pass over examples of their batch, if `statistics` ask for it.

    The pass is one of its own, between two steps: training computes what it would without it. The weights are those
    after the step.
    """

    def __init__(self, statistics: Sequence[str]):
        self.is_wanted = not ATTENTION_STATISTICS.keys().isdisjoint(statistics)
        self._traces: Traces = {}
        self._is_first = True

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_traces": {}}

    def begin(self) -> None:
        """Forgets the model's structure, which may have changed since the last training."""
        self._traces, self._is_first = {}, True

    def completed(self, report: SignalReport, model: keras.Model, batch: Any) -> SignalReport:
        """Returns the report with the rows of attention; as it is, where the batch is not at hand.

        What cannot be read costs a warning, not the training.
        """
        if batch is None:
            return report
        try:
            x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
            with traced_once(self._traces):
                attention, residuals, order, notes = read_attention(model, calls(model, x), x, y, order=self._is_first)
        except Exception as error:
            self.is_wanted = False
            warnings.warn(
                f"LayerStatsCallback: attention could not be read ({type(error).__name__}: {error}); training and "
                "measuring go on without it.",
                stacklevel=2,
            )
            return report
        self._is_first = False
        about = tuple(dict.fromkeys((*report.notes, *notes)))
        return replace(report, attention=attention, residuals=residuals, order=order, notes=about)
