"""The number of steps that a model has been trained for."""

from __future__ import annotations

import keras


def steps_done(model: keras.Model) -> int:
    """Returns how many training steps the model's optimizer has counted; 0 without an optimizer.

    `optimizer.iterations` counts updates, fewer than the steps where gradients are accumulated over several; the
    variable behind it counts steps. It is saved and restored with the optimizer's state, so it goes on where a
    restored training does. Under loss scaling, steps that were skipped because of an overflow do not count.
    """
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in getattr(optimizer, "variables", ()):
        if variable.name == "iteration":
            return int(keras.ops.convert_to_numpy(variable.value))
    return 0
