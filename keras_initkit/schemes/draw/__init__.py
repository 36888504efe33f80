"""Schemes that draw each kernel from a distribution."""

from keras_initkit.schemes.draw import _auto, _draw_all, _fixup  # noqa: F401  they register their schemes
