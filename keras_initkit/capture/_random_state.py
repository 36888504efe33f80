"""What a probe leaves as it found it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

_MISSING = object()


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` for a while: on the instance alone, past the attribute tracking of Keras."""
    attributes = vars(owner)
    before = attributes.get(name, _MISSING)
    attributes[name] = value
    try:
        yield
    finally:
        if before is _MISSING:
            del attributes[name]
        else:
            attributes[name] = before


@contextlib.contextmanager
def python_random(seed: int) -> Iterator[None]:
    """Python's `random`, from which Keras seeds whatever has no seed of its own, starts at `seed` for a while.

    `keras.utils.set_random_seed` would also seed TensorFlow, which then compiles every function anew: about a
    second each time.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Python's and NumPy's global random numbers, and Keras' generator of seeds, go on where they were.

    The generator's state is a variable, so a `StatelessScope` keeps it; but where nobody has needed it yet, it
    would be made inside, from Python's random numbers.
    """
    global_state, name = _global_seed_generator()
    generator = global_state.get_global_attribute(name)
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global state itself is kept)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        global_state.set_global_attribute(name, generator)


def global_seed() -> list[keras.Variable]:
    """The state of Keras' generator of seeds, if there is one yet."""
    global_state, name = _global_seed_generator()
    generator = global_state.get_global_attribute(name)
    return [] if generator is None else [generator.state]


def _global_seed_generator() -> tuple[Any, str]:
    # Private, but the only way to tell whether there is one: test_probe_state.py guards it.
    from keras.src.backend.common import global_state

    return global_state, "global_seed_generator"
