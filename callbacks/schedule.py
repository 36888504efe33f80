"""When to measure."""

from __future__ import annotations

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
        return lambda step, batch, steps: batch == 0
    if update_freq == "batch":
        update_freq = 1
    if isinstance(update_freq, bool) or not isinstance(update_freq, int) or update_freq < 1:
        raise ValueError(
            f"update_freq: got {update_freq!r}, expected 'epoch', 'batch' or a number of batches of 1 or more."
        )
    every = update_freq
    # A multiple of `every` among step, step + 1, ..., step + steps - 1.
    return lambda step, batch, steps: -step % every < steps
