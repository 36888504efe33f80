"""What several rules advise: one learning rate and one piece of advice on it, and what no code can do."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import keras

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

# Begins each remedy that is an instruction.
BY_HAND = "No code can do this for you: "


class LargeUpdate(NamedTuple):
    """The first update that was too large: its step, layer and size relative to the kernel, and the layers after it."""

    step: int
    layer: str
    ratio: float
    largest: dict[str, float]  # by layer, over the run


def find_large_update(evidence: Evidence) -> LargeUpdate | None:
    """Returns the first update beyond the limits of `update_too_large`, in the layer where it was largest then."""
    ratios = evidence.update_ratios
    lasting = {layer for layer, r in ratios.items() if _lasts(r)}
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


def _lasts(ratios: Sequence[float]) -> bool:
    """Returns whether updates are too large in the median, and in some reports one after the other.

    Adagrad's first steps are too, as large as its rate whatever the gradient, and fall with the root of their number.
    """
    ends = range(LASTING_REPORTS, len(ratios) + 1)
    in_a_row = any(min(ratios[end - LASTING_REPORTS : end]) > UPDATE_TOO_LARGE for end in ends)
    return in_a_row and statistics.median(ratios) > UPDATE_TOO_LARGE


def lower_rate(evidence: Evidence) -> str:
    """Returns what to do about a learning rate that is too large: the same for every finding of a run."""
    found = find_large_update(evidence)
    cut = UPDATE_STILL_HEALTHY / found.ratio if found else LARGEST_CUT
    cut = float(f"{min(max(cut, LEAST_CUT), LARGEST_CUT):.0e}")
    code = fresh_optimizer(evidence, cut)
    how = f': `{code}; keras_initkit.initialize(model, "reset")`' if code else _where_the_rate_is(evidence)
    return f"Multiply the learning rate by {cut:g} and train again from fresh weights{how}"


def _where_the_rate_is(evidence: Evidence) -> str:
    by_hand = evidence.model is not None and evidence.model.is_by_hand
    return ", in the optimizer of your loop" if by_hand else ", in each of the optimizers"


def multiply_rate(evidence: Evidence, factor: float) -> str:
    """Returns code that multiplies the learning rate, empty for several; a schedule gives way to a number."""
    optimizer = None if evidence.model is None else evidence.model.optimizer
    code = fresh_optimizer(evidence, factor)
    if not code or optimizer is None or isinstance(optimizer.get_config().get("learning_rate"), dict):
        return code
    return f"model.optimizer.learning_rate = {_multiply(optimizer, factor)}"


def fresh_optimizer(evidence: Evidence, factor: float) -> str:
    """Returns code that puts an optimizer without state, and with another rate, in place of the model's.

    The model keeps its loss, metrics and other options of `compile`, whether or not they can be serialized. Empty for
    an optimizer without a rate of its own, and in a loop that is written by hand.
    """
    model = evidence.model
    if model is not None and model.is_by_hand:
        return ""  # the loop has it
    optimizer = None if model is None else model.optimizer
    rate = f"{factor:g} * float(model.optimizer.learning_rate)"
    if optimizer is not None and getattr(optimizer, "learning_rate", None) is None:
        return ""  # several optimizers, each with its own
    inner = '["inner_optimizer"]["config"]' if model is not None and model.scales_loss else ""
    return (
        f"config = model.optimizer.get_config(); "
        f'config{inner}["learning_rate"] = {rate if optimizer is None else _multiply(optimizer, factor)}; '
        f"{put_optimizer('type(model.optimizer).from_config(config)')}"
    )


def put_optimizer(code: str) -> str:
    """Returns code that puts another optimizer, given as code, in place of the model's."""
    return f"model.optimizer = {code}; model.make_train_function(force=True)"


def _multiply(optimizer: keras.optimizers.Optimizer, factor: float) -> str:
    return repr(float(f"{factor * float(to_numpy(optimizer.learning_rate)):.3g}"))  # Keras refuses integers
