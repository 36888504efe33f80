"""What happens when a private name is no longer there."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

_TITLES = {"keras": "Keras", "tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
_WARNED: set[str] = set()  # the names of which this process has warned


def warn_moved(name: str, lost: str) -> None:
    """Warns, once per process for each name, that a framework no longer has it.

    Args:
        name: String. The private name, which begins with the framework's.
        lost: String. A clause that says what is worse without it.
    """
    if name in _WARNED:
        return
    _WARNED.add(name)
    framework = name.partition(".")[0]
    version = getattr(sys.modules.get(framework), "__version__", "(of unknown version)")
    warnings.warn(f"{_TITLES[framework]} {version} no longer has {name}; {lost}. Please report it.", stacklevel=3)


@contextlib.contextmanager
def unless_moved(name: str, lost: str) -> Iterator[None]:
    """Within this context, a name that is missing or has changed its shape costs a warning; see `warn_moved`.

    What is written after it is then run instead. Nothing of the user's may run inside, as its errors would be taken
    for that.
    """
    try:
        yield
    except (AttributeError, ImportError, KeyError, TypeError):
        warn_moved(name, lost)
