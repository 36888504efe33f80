"""When to measure."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

# (steps done before this batch, index of the batch in its epoch, steps that Keras runs at once) -> measure?
Schedule = Callable[[int, int, int], bool]


def every(number: int, first: int = 10) -> Callable[[int], bool]:
    """Every `number`-th step, and the `first` ones, in which initialization shows.

    >>> [step for step in range(35) if every(10, first=3)(step)]
    [0, 1, 2, 10, 20, 30]
    """
    return functools.partial(_is_multiple, _checked("number", number, 1), _checked("first", first, 0))


def logarithmic(per_decade: int = 10) -> Callable[[int], bool]:
    """About `per_decade` steps between 10 and 100, as many between 100 and 1,000, and so on; below 10 all.

    >>> [step for step in range(200) if logarithmic(4)(step)]
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 32, 56, 100, 178]
    """
    return functools.partial(_is_round, _checked("per_decade", per_decade, 1))


def schedule(update_freq: str | int | Callable[[int], bool]) -> Schedule:
    """The schedule behind an `update_freq`, which `keras.callbacks.TensorBoard` has too, but for functions.

    Args:
        update_freq: `"epoch"` (the first batch of every epoch, so the first measurement shows the model as
            initialized), `"batch"`, a number of batches, or a function of the number of steps done before.

    Raises:
        ValueError: for anything else.
    """
    if update_freq == "epoch":
        return _first_of_epoch
    if callable(update_freq):
        return functools.partial(_any_of_them, update_freq)
    if update_freq == "batch":
        update_freq = 1
    if isinstance(update_freq, bool) or not isinstance(update_freq, int) or update_freq < 1:
        raise ValueError(
            f"update_freq: got {update_freq!r}, expected 'epoch', 'batch', a number of batches of 1 or more, or a "
            "function of the step, such as every(100) or logarithmic()."
        )
    return functools.partial(_every, update_freq)


def _checked(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: got {value!r}, expected a whole number of {least} or more.")
    return value


# Functions of the module, so that a callback can be copied and pickled.
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
    return step in {round(10 ** (near / per_decade)) for near in (power - 1, power, power + 1)}
