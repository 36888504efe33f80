"""Context managers that save and restore random state."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np

from keras_initkit._compat import seed_generator, set_seed_generator, torch_random_state_kept


@contextlib.contextmanager
def python_random(seed: int) -> Iterator[None]:
    """Seeds Python's `random`, from which Keras draws the seeds that nobody set, for a while.

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
    """Restores the global random numbers of Python, NumPy and PyTorch (on the host), and Keras' generator of seeds.

    A `StatelessScope` keeps the generator's state; but where nobody has needed it yet, it would be made inside, from
    Python's random numbers.
    """
    generator = seed_generator()
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global state itself is kept)
    try:
        with torch_random_state_kept():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        set_seed_generator(generator)
