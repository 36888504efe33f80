"""The types of the command line's arguments: each returns the value, or says what was got and what is expected."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
from collections.abc import Callable, Sequence


def names(text: str) -> list[str]:
    """Returns names that commas separate."""
    return [name.strip() for name in text.split(",") if name.strip()]


def count(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Returns the type of an integer from `least` to `most`."""
    expected = "a positive integer" if least else f"an integer from 0 to {most}"

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = -1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
        return value

    return integer


def one_of(*known: str) -> Callable[[str], str]:
    """Returns the type of one of these names."""

    def name(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected one of {', '.join(known)}{near(text, known)}")
        return text

    return name


def near(text: str, known: Sequence[str]) -> str:
    """Returns a question after the names that are like this one; empty if there are none."""
    found = difflib.get_close_matches(text, known, n=2)
    return f" (did you mean {' or '.join(map(repr, found))}?)" if found else ""


def assignment(text: str) -> str:
    """Returns a text of the form NAME=VALUE."""
    if not re.match(r"[A-Za-z_]\w*=.", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=VALUE, such as steps=100")
    return text


def model_file(text: str) -> str:
    """Returns the path of a `.keras` file that exists; other formats may run code that they carry."""
    expected = "a file that model.save('name.keras') wrote"
    if text.endswith((".h5", ".hdf5")) or os.path.isfile(os.path.join(text, "saved_model.pb")):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected {expected}. Load it in Python and save it so; no other format is "
            "read here, because a file may run code that it carries"
        )
    _existing(text, expected)
    if not text.endswith(".keras"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
    return text


def new_model_file(text: str) -> str:
    """Returns the path of a `.keras` file, whether it exists or not."""
    if not text.endswith(".keras"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a path that ends with .keras")
    return text


def data_file(text: str) -> str:
    """Returns the path of a file that exists."""
    return _existing(text, "an .npz file that numpy.savez wrote, or an .npy file")


def _existing(text: str, expected: str) -> str:
    if not os.path.isfile(text):
        what = "is a directory" if os.path.isdir(text) else "does not exist"
        raise argparse.ArgumentTypeError(f"{text!r} {what}; expected {expected}")
    return text
