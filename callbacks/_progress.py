"""How far a model has been trained."""

from __future__ import annotations

import keras


def steps_done(model: keras.Model) -> int:
    """Number of training steps that the model's optimizer has done, by its own count; 0 without an optimizer.

    `optimizer.iterations` counts updates, fewer than the steps where gradients are accumulated over several; the
    variable behind it counts steps. It is saved and restored with the optimizer's state, so it goes on where a
    restored training does. Under loss scaling, steps that were skipped for an overflow are not in it.
    """
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in getattr(optimizer, "variables", ()):
        if variable.name == "iteration":
            return int(keras.ops.convert_to_numpy(variable.value))
    return 0
