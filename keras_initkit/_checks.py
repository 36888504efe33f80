"""Checks of arguments: each returns the value as plain data, or raises a `ValueError` that names the argument."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import math
import numbers
import operator
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np


def checked_option(name: str, value: Any, allowed: Sequence[str], otherwise: str = "") -> Any:
    """Returns an allowed `value` as a plain string; `otherwise` names what else the caller takes, for the error."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, allowed))}{otherwise}.")
    return str(value)


def checked_flag(name: str, value: Any) -> bool:
    """Returns True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: got {value!r}, expected True or False.")
    return bool(value)


def checked_number(
    name: str, value: Any, above: float = -math.inf, below: float = math.inf, least: float | None = None
) -> float:
    """Returns `value` as a float, if it is strictly between `above` and `below` and not less than `least`."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and above < value < below and (least is None or value >= least)):
        limits = [] if least is None else [f" of at least {least:g}"]
        limits += [f" above {above:g}"] * (above > -math.inf) + [f" below {below:g}"] * (below < math.inf)
        raise ValueError(f"{name}: got {value!r}, expected a finite number{' and'.join(limits)}.")
    return float(value)


def checked_count(name: str, value: Any, least: int = 1, most: float = math.inf) -> int:
    """Returns `value` as an integer from `least` to `most`. NumPy's integers are integers, booleans are not."""
    count = as_integer(value)
    if count is None or not least <= count <= most:
        expected = "a positive integer" if least == 1 else f"an integer of at least {least}"
        expected = expected if most == math.inf else f"an integer from {least} to {most}"
        raise ValueError(f"{name}: got {value!r}, expected {expected}.")
    return count


def checked_axes(name: str, value: Any) -> int | tuple[int, ...]:
    """Returns an axis as an integer, or several as a tuple of integers."""
    single = as_integer(value)
    if single is not None:
        return single
    axes = _integers(value)
    if None in axes:
        raise ValueError(f"{name}: got {value!r}, expected an integer or a sequence of integers.")
    return tuple(axes)  # type: ignore[arg-type]


def checked_shape(shape: Any, ranks: Sequence[int] | None = None, meaning: str = "") -> tuple[int, ...]:
    """Returns `shape` as a tuple, if its rank is among those allowed; `meaning` names what has such a shape."""
    sizes = _integers(shape)
    if any(size is None or size < 0 for size in sizes):
        raise ValueError(f"shape: got {shape!r}, expected a sequence of integers of at least 0.")
    if ranks is not None and len(sizes) not in ranks:
        allowed = f"{min(ranks)} to {max(ranks)}" if len(ranks) > 1 else f"{ranks[0]}"
        raise ValueError(f"shape: got {tuple(sizes)} of rank {len(sizes)}, expected rank {allowed}: {meaning}.")
    return tuple(sizes)  # type: ignore[arg-type]


def as_integer(value: Any) -> int | None:
    """Returns an integer of Python, NumPy or a framework as Python's; None for anything else, booleans included."""
    try:
        return None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        return None


def required_package(user: str, name: str, extra: str) -> Any:
    """Returns an optional package; an `ImportError` says who needs it and how it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{user}: got no package {name!r} ({error}), expected it to be installed. Run pip install "
            f"'keras-initkit[{extra}]'.",
            name=name,
        ) from error


def _integers(values: Any) -> list[int | None]:
    """Each value that is an integer; None for what is none, or in place of what is no sequence."""
    if isinstance(values, str | bytes | dict | set):
        return [None]
    try:
        return [as_integer(value) for value in values]
    except (TypeError, ValueError):  # the second from TensorFlow, for a shape of unknown rank
        return [None]


Layers: TypeAlias = str | re.Pattern[str] | Sequence[str | re.Pattern[str]] | None


def choose_layers(names: Sequence[str], chosen: Layers) -> list[str]:
    """Returns the names that are chosen, in their order; all for `None`.

    Args:
        names: Sequence of strings. Paths of the layers.
        chosen: String, compiled regular expression, or a list of them. A string is a path, a layer's name, the path of
            a composite layer, which chooses its parts, or a pattern with `*`; an expression is searched in the path.

    Raises:
        ValueError: If a choice matches no layer.
    """
    if chosen is None:
        return list(names)
    found: set[str] = set()
    for choice in [chosen] if isinstance(chosen, (str, re.Pattern)) else list(chosen):
        if not isinstance(choice, (str, re.Pattern)):
            raise ValueError(f"layers: got {choice!r}, expected a name, a pattern with *, or a regular expression.")
        matches = {name for name in names if _matches(choice, name)}
        if not matches:
            near = difflib.get_close_matches(str(choice), names, n=3) or list(names)[:10]
            raise ValueError(
                f"layers: got {choice!r}, which matches no layer of the report; there is {', '.join(near)}."
            )
        found |= matches
    return [name for name in names if name in found]


def _matches(choice: str | re.Pattern[str], name: str) -> bool:
    if isinstance(choice, re.Pattern):
        return bool(choice.search(name))
    return choice in (name, name.rpartition("/")[2]) or name.startswith(f"{choice}/") or fnmatch.fnmatch(name, choice)
