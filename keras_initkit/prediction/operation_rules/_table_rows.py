"""Rules for the rows of a table that integers choose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._signals import (
    LayerPropagation,
    Signal,
    UnpredictableError,
)
from keras_initkit.prediction.operation_rules._linear import host_values
from keras_initkit.prediction.operation_rules._rule_table import rule


@rule(operations="Take")
def look_up(call, inputs):
    """Reads rows of a table at random places, or at those that were given."""
    table = inputs[0].values
    if table is None or call.layer.axis not in (0, None) or len(inputs) < 2:
        raise UnpredictableError("it reads elements at places that depend on a tensor")
    rows = table()
    shape = call.outputs[0].shape
    return LayerPropagation(looked_up(rows, inputs[1], shape, inputs[0].sources), lambda gradient: [])


@rule("Embedding")
def embedding(call, inputs):
    """Reads rows of a table."""
    table = call.layer.embeddings
    found = looked_up(host_values(table), inputs[0], call.outputs[0].shape, frozenset({id(table)}))
    return LayerPropagation(found, lambda gradient: [])


def looked_up(rows: np.ndarray, places: Signal, shape: Sequence, sources: frozenset) -> Signal:
    """Returns the signal of rows that are read from a table; where the places are not given, any two may be one."""
    used = rows
    same = other = 1.0 / len(rows)
    if places.note == "data" and places.values is not None:
        index = np.asarray(places.values())
        used = rows[np.clip(index.ravel(), 0, len(rows) - 1)]
        same, other = _coinciding(index)
    if not np.isfinite(used).all():
        raise UnpredictableError("its table holds NaN or infinity")
    second, mean = float((used**2).mean()), float(used.mean())
    axes = len(shape) - 2
    size = tuple(shape[1:-1])

    def lags(share: float, zero: float) -> Autocorrelation:
        return Autocorrelation.white(zero, share * second + (1 - share) * mean**2, axes)

    return Signal(mean, second, size, lags(same, second), lags(other, other * second + (1 - other) * mean**2),
                  sources=sources)  # fmt: skip


def _coinciding(index: np.ndarray) -> tuple[float, float]:
    """Returns how often two places of one example, and of two examples, hold the same integer."""
    flat = index.reshape(len(index), -1)
    n, m = flat.shape

    def pairs(values: np.ndarray) -> float:
        return float((np.unique(values, return_counts=True)[1].astype("float64") ** 2).sum())

    own = sum(pairs(row) for row in flat)
    within = (own - n * m) / (n * m * (m - 1)) if m > 1 else 0.0
    between = (pairs(flat) - own) / (n * (n - 1) * m**2) if n > 1 else 0.0
    return within, between
