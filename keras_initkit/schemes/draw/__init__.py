"""Schemes that draw each kernel from a distribution."""

from keras_initkit.schemes.draw import (  # noqa: F401  they register their schemes
    _auto,
    _depth_presets,
    _draw_all,
    _fixup,
    _language_presets,
    _mimetic,
)
