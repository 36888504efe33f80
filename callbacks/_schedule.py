"""When a training step is measured."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

from keras_initkit._checks import as_integer, checked_count

UpdateFreq = Literal["epoch", "batch"] | int | Callable[[int], bool]
# (steps done before this batch, index of the batch in its epoch, steps that Keras runs at once) -> measure?
Schedule = Callable[[int, int, int], bool]


def every(number: int, first: int = 10) -> Callable[[int], bool]:
    """Measures every `number`-th step, and the first ones, where initialization shows.

    Args:
        number: Integer. Steps from one measured step to the next.
        first: Integer. How many steps at the beginning are all measured.

    Returns:
        A function of the number of steps done, for `LayerStatsCallback(update_freq=...)`.

    Example:

    >>> [step for step in range(35) if every(10, first=3)(step)]
    [0, 1, 2, 10, 20, 30]
    """
    return functools.partial(_is_multiple, checked_count("number", number), checked_count("first", first, 0))


def logarithmic(per_decade: int = 10) -> Callable[[int], bool]:
    """Measures the first ten steps, then about `per_decade` in each further power of ten.

    Args:
        per_decade: Integer. Measured steps in each decade.

    Returns:
        A function of the number of steps done, for `LayerStatsCallback(update_freq=...)`.

    Example:

    >>> [step for step in range(200) if logarithmic(4)(step)]
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 32, 56, 100, 178]
    """
    return functools.partial(_is_round, checked_count("per_decade", per_decade))


def make_schedule(update_freq: UpdateFreq, has_epochs: bool = True) -> Schedule:
    """Returns the schedule that an `update_freq` means, of `LayerStatsCallback` or of a loop without epochs."""
    if callable(update_freq):
        return functools.partial(_any_of_them, update_freq)
    if has_epochs and update_freq == "epoch":
        return _first_of_epoch
    number = 1 if update_freq == "batch" else as_integer(update_freq)
    if number is None or number < 1:
        epoch = "'epoch', " if has_epochs else ""
        raise ValueError(
            f"update_freq: got {update_freq!r}, expected {epoch}'batch', a positive number of "
            "batches, or a function of the step, such as every(100) or logarithmic()."
            + " A loop that is written by hand has no epochs that could be seen."
            * (update_freq == "epoch")
        )
    return functools.partial(_every, number)


# Functions of the module, not local ones: a callback can then be copied and pickled.
def _first_of_epoch(step: int, batch: int, steps: int) -> bool:
    return batch == 0


def _every(number: int, step: int, batch: int, steps: int) -> bool:
    return -step % number < steps  # a multiple of it among step, step + 1, ..., step + steps - 1


def _any_of_them(due: Callable[[int], bool], step: int, batch: int, steps: int) -> bool:
    return any(due(one) for one in range(step, step + steps))


def _is_multiple(number: int, first: int, step: int) -> bool:
    return step < first or step % number == 0


def _is_round(per_decade: int, step: int) -> bool:
    """Whether the step is a power of 10 ^ (1 / per_decade), rounded."""
    if step < 10:
        return True
    power = round(per_decade * math.log10(step))
    return step == round(10 ** (power / per_decade))
