"""Published experiments, one script each; installed and imported as `keras_initkit.examples`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_initkit.examples._names import NAMES

if TYPE_CHECKING:
    from keras_initkit.examples._form import Example, reproduce, start

__all__ = ["NAMES", "Example", "reproduce", "start"]

if not TYPE_CHECKING:

    def __getattr__(name):
        if name in __all__:  # their module loads matplotlib
            from keras_initkit.examples import _form

            return getattr(_form, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
