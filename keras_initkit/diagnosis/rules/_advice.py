"""What several rules advise: one learning rate and one piece of advice on it."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from keras_initkit._arrays import to_numpy
from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.theory._thresholds import (
    GRAVE_UPDATE,
    LARGEST_CUT,
    LASTING_REPORTS,
    LEAST_CUT,
    UPDATE_STILL_HEALTHY,
    UPDATE_TOO_LARGE,
)


class LargeUpdate(NamedTuple):
    """The first update that was too large: its step, layer and size relative to the kernel, and the layers after it."""

    step: int
    layer: str
    ratio: float
    largest: dict[str, float]  # by layer, over the run


def find_large_update(evidence: Evidence) -> LargeUpdate | None:
    """Returns the first update beyond the limits of `update_too_large`, in the layer where it was largest then."""
    ratios = evidence.update_ratios
    lasting = {
        layer for layer, r in ratios.items() if len(r) >= LASTING_REPORTS and statistics.median(r) > UPDATE_TOO_LARGE
    }
    large = {layer: max(r) for layer, r in ratios.items() if layer in lasting or max(r) > GRAVE_UPDATE}
    for report, readings in zip(evidence.reports, evidence.readings, strict=True):
        beyond = {
            layer: ratio
            for layer in large
            if layer in readings
            and evidence.grown(layer, readings[layer])
            and (ratio := readings[layer].update_ratio or 0.0) > UPDATE_TOO_LARGE
        }
        if beyond:
            layer = max(beyond, key=beyond.__getitem__)
            return LargeUpdate(report.step, layer, beyond[layer], large)
    return None


def lower_rate(evidence: Evidence) -> str:
    """Returns what to do about a learning rate that is too large: the same for every finding of a run."""
    found = find_large_update(evidence)
    cut = UPDATE_STILL_HEALTHY / found.ratio if found else LARGEST_CUT
    cut = float(f"{min(max(cut, LEAST_CUT), LARGEST_CUT):.0e}")
    code = change_optimizer("learning_rate", _rate_change(evidence, cut))
    return f"Multiply the learning rate by {cut:g} and train again from fresh weights: `{code}`"


def change_optimizer(option: str, change: str) -> str:
    """Returns code that changes an option of the optimizer, whose state is lost, and makes the weights fresh."""
    return (
        f'config = model.get_compile_config(); config["optimizer"]["config"]["{option}"] {change}; '
        'model.compile_from_config(config); keras_initkit.initialize(model, "reset")'
    )


def _rate_change(evidence: Evidence, factor: float) -> str:
    """Returns how the rate of a configuration is multiplied; a schedule gives way to a number."""
    optimizer = None if evidence.model is None else evidence.model.optimizer
    if optimizer is not None and isinstance(optimizer.get_config().get("learning_rate"), dict):
        return f"= {factor * float(to_numpy(optimizer.learning_rate)):.2g}"
    return f"*= {factor:g}"
