"""When to measure."""

from __future__ import annotations

import functools
from collections.abc import Callable

# (steps done before this batch, index of the batch in its epoch, steps that Keras runs at once) -> measure?
Schedule = Callable[[int, int, int], bool]


def schedule(update_freq: str | int) -> Schedule:
    """The schedule behind an `update_freq` as `keras.callbacks.TensorBoard` takes it.

    Args:
        update_freq: `"epoch"` (the first batch of every epoch, so the first measurement shows the model as
            initialized), `"batch"`, or a number of batches.

    Raises:
        ValueError: for anything else.
    """
    if update_freq == "epoch":
        return _first_of_epoch
    if update_freq == "batch":
        update_freq = 1
    if isinstance(update_freq, bool) or not isinstance(update_freq, int) or update_freq < 1:
        raise ValueError(
            f"update_freq: got {update_freq!r}, expected 'epoch', 'batch' or a number of batches of 1 or more."
        )
    return functools.partial(_every, update_freq)


# Functions of the module, so that a callback can be copied and pickled.
def _first_of_epoch(step: int, batch: int, steps: int) -> bool:
    return batch == 0


def _every(number: int, step: int, batch: int, steps: int) -> bool:
    return -step % number < steps  # a multiple of it among step, step + 1, ..., step + steps - 1
