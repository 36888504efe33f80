"""Units that carry no signal: judged over all examples, not by the share of zeros."""

from __future__ import annotations

import numpy as np

from keras_initkit.theory._thresholds import SATURATED_FRACTION, SATURATION_DEPTH


def dead_units(outputs: np.ndarray) -> np.ndarray:
    """Which units are zero for every example and position.

    Half of a healthy ReLU layer's *elements* are zero; a unit is dead only if nothing moves it.

    Args:
        outputs: a layer's outputs, shape (examples, ..., units).

    Returns:
        A boolean per unit.
    """
    return (_by_unit(outputs) == 0).all(axis=0)


def saturated_units(
    outputs: np.ndarray, limits: tuple[float, float], depth: float = SATURATION_DEPTH, share: float = SATURATED_FRACTION
) -> np.ndarray:
    """Which units sit at an end of the activation's range for nearly every example and position.

    Args:
        outputs: a layer's outputs, shape (examples, ..., units).
        limits: the activation's range (`theory.activation_range`); an open end saturates nothing.
        depth: an output is saturated beyond this part of the way from the range's middle to its end.
        share: a unit is saturated if at least this share of its outputs is.

    Returns:
        A boolean per unit.
    """
    low, high = limits
    if not np.isfinite([low, high]).all():
        return np.zeros(outputs.shape[-1], bool)
    middle, half = (low + high) / 2, (high - low) / 2
    return (np.abs(_by_unit(outputs) - middle) > depth * half).mean(axis=0) >= share


def _by_unit(outputs: np.ndarray) -> np.ndarray:
    return np.asarray(outputs).reshape(-1, outputs.shape[-1])
