"""What a report holds; the renderers and the files take this, and `SignalReport` adds them as methods."""

from __future__ import annotations

from dataclasses import dataclass

from keras_initkit.report._attention_rows import AttentionStats, OrderStats, ResidualStats
from keras_initkit.report._flow import LayerFlow
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._tap import Tap


@dataclass(frozen=True)
class ReportData:
    """Rows of measured tensors, and where in training they were measured. See `SignalReport`."""

    rows: tuple[TensorStats, ...]
    step: int = 0
    epoch: int = 0
    model: str = ""
    notes: tuple[str, ...] = ()
    attention: tuple[AttentionStats, ...] = ()
    residuals: tuple[ResidualStats, ...] = ()
    order: tuple[OrderStats, ...] = ()
    loss: float | None = None
    flow: tuple[LayerFlow, ...] = ()
    references: tuple[TensorStats, ...] = ()

    @property
    def moments(self) -> dict[Tap, Moments]:
        """Moments of each measured tensor."""
        return {row.tap: row.moments for row in self.rows}

    @property
    def layers(self) -> list[str]:
        """Paths of the measured layers, in the report's order."""
        return list(dict.fromkeys(row.tap.layer for row in self.rows))


def title(model: str, about: str = "", data: ReportData | None = None) -> str:
    """Returns `"Signal of <model><about>"`, followed by the epoch and step of `data` unless both are 0."""
    when = f", epoch {data.epoch}, step {data.step}" if data is not None and (data.step or data.epoch) else ""
    return f"Signal{f' of {model}' if model else ''}{about}{when}"
