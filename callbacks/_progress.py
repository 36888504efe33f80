"""The number of steps that a model has been trained for."""

from __future__ import annotations

from typing import Any

import keras

from keras_initkit.capture._optimizers import find_optimizers


def steps_done(model: keras.Model) -> int:
    """Returns how many training steps the model's optimizer has counted; 0 without an optimizer.

    `optimizer.iterations` counts updates, fewer than the steps where gradients are accumulated over several; the
    variable behind it counts steps. It is saved and restored with the optimizer's state, so it goes on where a
    restored training does. Under loss scaling, steps that were skipped because of an overflow do not count. Where that
    of `compile` has counted nothing, the model's own optimizers say it: the one that has counted least, since a step
    may use one several times (the critic of a WGAN).
    """
    own = count_steps(getattr(model, "optimizer", None))
    others = [count for count in map(count_steps, find_optimizers(model)) if count]
    return own or min(others, default=0)


def count_steps(optimizer: Any) -> int:
    """Returns how many steps an optimizer has counted."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in getattr(optimizer, "variables", ()):
        if variable.name == "iteration":
            return int(keras.ops.convert_to_numpy(variable.value))
    return 0
